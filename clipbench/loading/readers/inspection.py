"""Images of parts that are good or have a defect, of whatever kind."""

import re

from clipbench.core.errors import UserError

Listed = dict[str, dict[str, list[str]]]  # the images of each split, by class

# What a class of flawless parts is called, without blanks and in lower case.
GOOD = frozenset(("good", "ok", "okay", "normal", "nodefect", "nondefective", "defectfree", "pass"))
DEFECT = "defect"


def is_good(name: str) -> bool:
    """Return whether a class of that name is of flawless parts."""
    return re.sub(r"[\W_]+", "", name.casefold()) in GOOD


def good_or_defect(listed: Listed) -> Listed:
    """Join all classes but that of flawless parts; raise a UserError unless one class is."""
    classes = {name for images in listed.values() for name in images}
    good = sorted(name for name in classes if is_good(name))
    if len(good) != 1:
        what = " and ".join(good) if good else "no class folder"
        raise UserError(
            f"dataset.labels=good_or_defect: {what} is called good, ok or normal, and one must be. "
            "Leave the option out"
        )
    two_classes: Listed = {}
    for split, images in listed.items():
        defects = sorted(image for name in images if name != good[0] for image in images[name])
        two_classes[split] = {DEFECT: defects, good[0]: images.get(good[0], [])}
    return two_classes
