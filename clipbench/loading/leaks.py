"""Images that are byte for byte on both sides of a measurement: trained on, and evaluated."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from clipbench.core.errors import UserError
from clipbench.loading.images.contents import UNKNOWN
from clipbench.loading.images.decoding import content
from clipbench.loading.split import Split

TRAINED = ("train", "mix")
ALLOWED = ("stop", "allow")


def pairs(names: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the splits that must share no image: what is trained on, or chosen by, comes first.

    Args:
        names: of the splits; besides the dataset's own, ``mix`` is trained on as train is, and
            ``retention`` is evaluated, though of another dataset.
    """
    evaluated = [name for name in names if name not in TRAINED]
    yield from ((name, other) for name in TRAINED if name in names for other in evaluated)
    if "val" in names:
        yield from (("val", other) for other in evaluated if other not in ("val", "retention"))


def leaks(splits: Mapping[str, Split]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return the ids of the images that two splits share, by the names of the two.

    Equal digests, which are of the size and both ends of a file, are candidates; of these all bytes
    are compared.

    Args:
        splits: whose images have been looked at; those that cannot be read play no part.
    """
    found = {(name, other): _shared(splits[name], splits[other]) for name, other in pairs(splits)}
    return {pair: shared for pair, shared in found.items() if shared}


def _shared(first: Split, second: Split) -> list[tuple[str, str]]:
    mine, theirs = (_digests(split) for split in (first, second))
    # By half of each digest, which numpy compares at once.
    one, other = (digests.view(np.uint64)[:, 0] for digests in (mine, theirs))
    places = {mine[i].tobytes(): i for i in np.flatnonzero(np.isin(one, other)).tolist()}
    shared = []
    for k in np.flatnonzero(np.isin(other, one)).tolist():
        i = places.get(digest := theirs[k].tobytes())
        if i is not None and digest != UNKNOWN and _same(first, i, second, k):
            shared.append((first.ids[i], second.ids[k]))
    return shared


def _digests(split: Split) -> NDArray[np.uint8]:
    assert split.digests is not None
    return np.ascontiguousarray(split.digests)


def _same(first: Split, i: int, second: Split, k: int) -> bool:
    one, other = first.images[i], second.images[k]
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other)  # of pixels the digest is of all
    return content(one) == content(other)


def check(splits: Mapping[str, Split], allowed: str) -> list[str]:
    """Refuse splits that share images, byte for byte.

    Args:
        splits: as for :func:`leaks`.
        allowed: the root key ``leaks``: ``stop``, or ``allow`` to go on.

    Returns:
        What is to be kept in the record where they do and that is allowed.

    Raises:
        UserError: with the ids of each pair; for another value.
    """
    if allowed not in ALLOWED:
        raise UserError(f"leaks={allowed}: is not one of {', '.join(ALLOWED)}. Use one of them.")
    messages, details = list[str](), list[str]()
    for (name, other), shared in leaks(splits).items():
        details += [f"{name}: {one} = {other}: {two}" for one, two in shared]
        count = len({two for _, two in shared})
        images = "1 image of" if count == 1 else f"{count:,} images of"
        is_in = "is" if count == 1 else "are"
        messages.append(f"{images} {other} {is_in} byte for byte in {name} too")
    if messages and allowed == "stop":
        raise UserError(
            f"{'; '.join(messages)}, first {details[0]}. Remove one of each pair, or go on with "
            "leaks=allow, which is kept in the record.",
            details,
        )
    return [f"leaks=allow: {text}" for text in messages]
