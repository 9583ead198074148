"""From an image to a tensor: preprocessing and augmentation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbench.transforms.augment import Augment

__all__ = ["Augment"]


def __getattr__(name: str) -> Any:
    """Import ``Augment`` on access: its address is in every record and every run key."""
    if name == "Augment":
        from clipbench.transforms.augment import Augment

        return Augment
    raise AttributeError(f"module 'clipbench.transforms' has no attribute {name!r}")
