"""Images that are trained on and evaluated, byte for byte the same."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from clipbench.core.errors import UserError
from clipbench.loading.images.contents import UNKNOWN
from clipbench.loading.images.decoding import Source, content
from clipbench.loading.split import Split

TRAINED = ("train", "mix")
ALLOWED = ("stop", "allow")


def pairs(names: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of splits that must not share an image, trained on or chosen by first.

    Besides the dataset's own splits, ``mix`` is trained on, and ``retention`` is evaluated.
    """
    evaluated = [name for name in names if name not in TRAINED]
    yield from ((trained, name) for trained in TRAINED if trained in names for name in evaluated)
    if "val" in names:
        yield from (("val", name) for name in evaluated if name not in ("val", "retention"))


def leaks(splits: Mapping[str, Split]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return the ids of the readable images that two splits share, by the names of the two.

    Of images with equal digests, which are of the size and both ends of a file, all bytes are
    compared.
    """
    shared = {pair: _shared(*(splits[name] for name in pair)) for pair in pairs(splits)}
    return {pair: ids for pair, ids in shared.items() if ids}


def _shared(first: Split, second: Split) -> list[tuple[str, str]]:
    digests, others = _digests(first), _digests(second)
    # By half of each digest, which numpy compares at once.
    half, other_half = digests.view(np.uint64)[:, 0], others.view(np.uint64)[:, 0]
    places = {digests[i].tobytes(): i for i in np.flatnonzero(np.isin(half, other_half)).tolist()}
    shared = []
    for k in np.flatnonzero(np.isin(other_half, half)).tolist():
        i = places.get(digest := others[k].tobytes())
        if i is not None and digest != UNKNOWN and _same(first.images[i], second.images[k]):
            shared.append((first.ids[i], second.ids[k]))
    return shared


def _digests(split: Split) -> NDArray[np.uint8]:
    assert split.digests is not None
    return np.ascontiguousarray(split.digests)


def _same(first: Source | NDArray[np.uint8], second: Source | NDArray[np.uint8]) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return type(first) is type(second)  # a digest of pixels is of all of them
    return content(first) == content(second)


def check(splits: Mapping[str, Split], allowed: str) -> list[str]:
    """Refuse splits that share images, byte for byte; if ``allowed=allow``, return warnings.

    Raises:
        UserError: with the ids of each pair; for another value of the root key ``leaks``.
    """
    if allowed not in ALLOWED:
        raise UserError(f"leaks={allowed}: is not one of {', '.join(ALLOWED)}. Use one of them.")
    messages, details = list[str](), list[str]()
    for (trained, name), shared in leaks(splits).items():
        details += [f"{trained}: {first} = {name}: {second}" for first, second in shared]
        count = len({second for _, second in shared})
        images = f"1 image of {name} is" if count == 1 else f"{count:,} images of {name} are"
        messages.append(f"{images} byte for byte in {trained} too")
    if messages and allowed == "stop":
        raise UserError(
            f"{'; '.join(messages)}, first {details[0]}. Remove one of each pair, or go on with "
            "leaks=allow, which is kept in the record.",
            details,
        )
    return [f"leaks=allow: {text}" for text in messages]
