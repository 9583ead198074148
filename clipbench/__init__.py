"""clipbench: fine-tune CLIP, or the ResNet we know?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbench.inference.saved_model import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """``clipbench.load`` is imported when it is used: --help must not wait for torch."""
    if name == "load":
        from clipbench.inference.saved_model import load

        return load
    raise AttributeError(f"module 'clipbench' has no attribute {name!r}")
