"""Images of parts that are good or have a defect, whatever kinds of defects there are."""

import re

from clipbench.core.errors import UserError

Listed = dict[str, dict[str, list[str]]]  # the images of each split, by class

# What a class of flawless parts is called, without blanks and in lower case.
GOOD = frozenset(("good", "ok", "okay", "normal", "nodefect", "nondefective", "defectfree", "pass"))
DEFECT = "defect"


def is_good(name: str) -> bool:
    """Whether a class of that name is of flawless parts."""
    return re.sub(r"[\W_]+", "", name.casefold()) in GOOD


def good_or_defect(listed: Listed) -> Listed:
    """Join all classes but that of flawless parts.

    Raises:
        UserError: if there is not one such class.
    """
    classes = {name for own in listed.values() for name in own}
    good = sorted(name for name in classes if is_good(name))
    if len(good) != 1:
        what = " and ".join(good) if good else "no class folder"
        raise UserError(
            f"dataset.labels=good_or_defect: {what} is called good, ok or normal, and one must be. "
            "Leave the option out"
        )
    joined_classes: Listed = {}
    for split, own in listed.items():
        defects = sorted(image for name in own if name != good[0] for image in own[name])
        joined_classes[split] = {DEFECT: defects, good[0]: own.get(good[0], [])}
    return joined_classes
