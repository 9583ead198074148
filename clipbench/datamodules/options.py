"""What every dataset takes besides its own keys."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from clipbench.core.errors import UserError
from clipbench.loading.class_names import Names


class Options(TypedDict, total=False):
    """What every dataset takes besides its own keys; see ``conf/dataset/options/pictures.yaml``."""

    workers: int
    shots: int | None
    subset: Sequence[str | int] | int | None
    class_names: Names | str | None
    templates: Sequence[str] | str | None
    balance: str | None
    resize_mode: str | None
    bad_images: str
    value_range: tuple[float, float] | None
    decoder: str
    cache_gb: float


ONE_OF: Mapping[str, tuple[str | None, ...]] = {
    "balance": (None, "sampler", "weights", "unique"),
    "resize_mode": (None, "crop", "squash", "pad"),
    "bad_images": ("stop", "skip"),
    "decoder": ("torchvision", "pillow"),
}


def refuse_unknown(options: Mapping[str, Any]) -> None:
    """Refuse a value that an option does not have, and say which it has.

    Raises:
        UserError: naming the first.
    """
    for key, known in ONE_OF.items():
        if options.get(key, known[0]) not in known:
            shown = ", ".join("null" if k is None else k for k in known)
            raise UserError(f"dataset.{key}={options[key]}: unknown. Use one of {shown}")
