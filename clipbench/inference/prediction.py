"""What a tuned classifier says of pictures, be they readable or not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clipbench.core.errors import Refused
from clipbench.loading.dataset import Key, Pictures, collate
from clipbench.loading.images.contents import faults
from clipbench.loading.loaders import refuse_small_shared_memory
from clipbench.loading.split import Split
from clipbench.metrics import classification
from clipbench.models.base import Classifier
from clipbench.transforms.preprocess import Preprocess, eval_transform


@dataclass(frozen=True)
class Said:
    """What was said of one picture.

    Attributes:
        index: its position in the split.
        classes: the most probable, best first; empty for a picture that cannot be read.
        probabilities: of these.
        error: why it cannot be read.
    """

    index: int
    classes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None


class _Readable(Pictures):
    """Rows of pictures; of one that cannot be read, the reason."""

    def __init__(self, split: Split, *args: Any, **reading: Any) -> None:
        super().__init__(split, *args, **reading)
        found = faults(split.sources, reading.get("value_range"))
        self.faults = {i: found[s] for i, s in enumerate(split.sources) if s in found}

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        assert isinstance(key, int)
        if key in self.faults:
            return {"index": key, "error": self.faults[key]}
        try:
            return super().__getitem__(key)
        except Refused as bad:
            return {"index": key, "error": str(bad)}


def _apart(rows: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, list[Said]]:
    """A batch of what can be read, and the rest."""
    bad = [Said(row["index"], error=row["error"]) for row in rows if "error" in row]
    good = [row for row in rows if "error" not in row]
    return (collate(good) if good else None), bad


def batches(
    split: Split, preprocess: Preprocess, *, batch_size: int = 64, workers: int = 0, **reading: Any
) -> Iterable[tuple[dict[str, Any] | None, list[Said]]]:
    """Batches of a split as a model sees it, each with what was left out of it and why.

    Args:
        split: pictures, readable or not.
        preprocess: the model's.
        batch_size: pictures in memory at once.
        workers: processes that decode.
        reading: ``decoder`` and ``value_range``, see :class:`Pictures`.
    """
    refuse_small_shared_memory(workers, batch_size, preprocess.size)
    pictures = _Readable(split, eval_transform(preprocess), **reading)
    return DataLoader(pictures, batch_size, num_workers=workers, collate_fn=_apart)


@torch.inference_mode()
def said(
    classifier: Classifier,
    split: Split,
    *,
    top: int = 1,
    temperature: float = 1.0,
    batch_size: int = 64,
    workers: int = 0,
    **reading: Any,
) -> Iterator[Said]:
    """The most probable classes of each picture, in the split's order within a batch.

    Args:
        classifier: in eval mode, on the device that it should work on.
        split: its labels are not looked at; of ``among`` nothing else is chosen.
        top: how many classes.
        temperature: of the probabilities; it changes no order.
        batch_size: pictures in memory at once.
        workers: processes that decode.
        reading: ``decoder`` and ``value_range``, see :class:`Pictures`.
    """
    device = next(classifier.parameters()).device
    for batch, bad in batches(
        split, classifier.tower.preprocess, batch_size=batch_size, workers=workers, **reading
    ):
        found = list(bad)
        if batch is not None:
            scores = classifier(batch["image"].to(device)).float().cpu()
            found += _best(
                classification.among(scores, split.among), batch["index"], top, temperature
            )
        yield from sorted(found, key=lambda one: one.index)


def device(name: str | None) -> torch.device:
    """The device of that name; by default a GPU if there is one.

    Raises:
        Refused: for one that there is not.
    """
    try:
        found = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise Refused(f"device={name} is not here; use cpu, or leave it out") from None
    return found


def _best(scores: Tensor, index: Tensor, top: int, temperature: float) -> Iterator[Said]:
    probabilities = (scores / temperature).softmax(1)
    # By score, the lowest class first on ties, as everywhere: topk() promises no order.
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :top]
    for i, classes, own in zip(
        index.tolist(), order.tolist(), probabilities.gather(1, order).tolist(), strict=True
    ):
        yield Said(i, tuple(classes), tuple(own))
