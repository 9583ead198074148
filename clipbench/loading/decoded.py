"""Decode every image once before training on it, to find damage that no header shows."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from clipbench.core import paths
from clipbench.core.locking import wait_for_lock
from clipbench.loading.images.decoding import Range, Source
from clipbench.loading.images.integrity import COMPLAINT, survey
from clipbench.loading.split import Split

SECONDS = 60.0  # that the images new to a folder may take, on all cores


def kept_in(root: Path) -> Path:
    """Return the file that lists which images below a dataset's root have been decoded."""
    name = hashlib.sha256(str(root.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
    return paths.outputs() / "cache" / "decoded" / f"{name}.parquet"


def distrust(root: Path) -> None:
    """Have the next :func:`decode` of a dataset take its time, after damage was found in use."""
    file = _doubted(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def _doubted(root: Path) -> Path:
    return kept_in(root).with_suffix(".doubted")


def decode(
    splits: Mapping[str, Split],
    root: Path,
    value_range: Range | None,
    seconds: float | None = SECONDS,
    *,
    as_published: bool = False,
) -> tuple[dict[Source, str], list[str]]:
    """Decode every image that is new or has changed, those of evaluation splits first.

    Return the reason for each that cannot be decoded, and warnings.

    Faults of train show in its first epoch anyway. Without a limit of ``seconds``, or after
    :func:`distrust`, images are decoded for which earlier calls had no time. ``as_published`` only
    warns of what a decoder complains of but decodes: some published sets have such files
    (Oxford-IIIT Pets has a few), and everyone trains on them.
    """
    order = sorted(splits, key=lambda name: {"train": 2, "val": 1}.get(name, 0))
    sources = [*dict.fromkeys(s for name in order for s in splits[name].sources)]
    if not sources:
        return {}, []
    file = kept_in(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(file.with_suffix(".lock")):
        doubted = _doubted(root)
        limit = None if doubted.exists() else seconds
        rows = survey(sources, file, value_range, limit)
        doubted.unlink(missing_ok=True)
    reasons = dict(zip(sources, rows["reason"], strict=True))
    bad = {source: reason for source, reason in reasons.items() if reason is not None}
    odd = {s: why for s, why in bad.items() if as_published and why.startswith(COMPLAINT)}
    warnings = []
    if later := int((rows["sha256"].isna() & rows["reason"].isna()).sum()):
        warnings.append(
            f"{later:,} of {len(sources):,} images were not decoded beforehand, which has "
            f"{seconds:g} s: they were looked at from outside. python -m clipbench.data check "
            "decodes all of them"
        )
    if odd:
        first, why = next(iter(odd.items()))
        warnings.append(f"{len(odd):,} images are used as published, first {first}: {why}")
    return {s: why for s, why in bad.items() if s not in odd}, warnings
