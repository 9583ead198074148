"""What every dataset takes besides its own keys."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from clipbench.core.errors import UserError
from clipbench.loading.class_names import Names


class Options(TypedDict, total=False):
    """What every dataset takes besides its own keys; see ``conf/dataset/options/images.yaml``."""

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
    """Refuse the first option whose value is unknown, and name the known ones."""
    for key, values in ONE_OF.items():
        if options.get(key, values[0]) not in values:
            names = ", ".join(value or "null" for value in values)
            raise UserError(f"dataset.{key}={options[key]}: unknown. Use one of {names}")
