"""Which folders of a user's images are splits and which are classes, or why it is ambiguous."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from clipbench.core.config.overrides import literal, shell
from clipbench.core.errors import UserError, printable
from clipbench.loading.images.folder_walk import NOT_UTF8, Tree, identifier, joined
from clipbench.loading.readers.inspection import Listed, is_good
from clipbench.loading.readers.text_files import around_split, split_name

Places = dict[str, tuple[str, str]]  # the split and the class of each folder of images

TYPE_ROLES = "'dataset.splits={train: a, val: b, test: c}' with your folders for a, b and c"
TYPE_NONE = "dataset.splits=none if these folders are the classes"
# Kinds of files, not classes of things.
KINDS = frozenset(("images", "masks", "labels", "annotations", "ground_truth", "segmentations"))


@dataclass
class Layout:
    """The images of a tree by split and class, empty classes included.

    Images in no class folder are left out, decisions that may be wrong are warnings, and the rule
    says how splits were joined if the tree's own cannot be used.
    """

    listed: Listed = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rule: str | None = None


class Folders:
    """How many images the folders of a tree hold, directly and in total; the root is ""."""

    def __init__(self, tree: Tree) -> None:
        self.root = tree.root
        self.below: dict[str, list[str]] = defaultdict(list)
        self.direct, self.total = Counter[str](), Counter[str]()
        for folder in tree.folders:
            home, _, name = folder.rpartition("/")
            self.below[home].append(name)
        for image in tree.images:
            parents = [str(parent) for parent in PurePosixPath(image).parents]
            homes = ["" if parent == "." else parent for parent in parents]
            self.direct[homes[0]] += 1
            self.total.update(homes)

    def holding(self, home: str = "") -> list[str]:
        """Return the names of the folders in a folder that hold images, at any depth."""
        return [name for name in self.below[home] if self.total[joined(home, name)]]

    def is_wrapper(self, home: str) -> bool:
        """Return whether a folder holds just a single folder, which holds further folders."""
        inner = self.holding(home)
        if self.direct[home] or len(inner) != 1:
            return False
        only = joined(home, inner[0])
        return not self.direct[only] and len(self.holding(only)) > 1


def read(tree: Tree, splits: Mapping[str, str | Sequence[str]] | str | None) -> Layout:
    """Return the images of a tree by split and class.

    ``splits`` maps splits to folders, is ``none`` if the top folders are the classes, or None to go
    by their names.

    Raises:
        UserError: if folders may be one thing or another, with what to type.
    """
    _refuse_broken(tree)
    folders, layout = Folders(tree), Layout()
    places: Places | None = None
    if isinstance(splits, Mapping):
        places = _as_typed(folders, splits)
    elif splits is not None and splits != "none":
        raise UserError(
            f"dataset.splits={splits} is not a mapping. Use {TYPE_ROLES}, or {TYPE_NONE}"
        )
    else:
        roles = {} if splits else _roles(folders)
        places = _split_first(folders, roles, layout) if roles else None
        if places is None and splits is None:
            _refuse_flat_splits(folders)
            places = _class_first(folders)
        if places is None:
            if splits is None:
                _refuse_not_classes(folders)
            places = {name: ("train", name) for name in folders.below[""]}
            _warn_of_depth(folders, layout)
    _fill(layout, tree, places)
    return layout


def _refuse_broken(tree: Tree) -> None:
    """Refuse links that lead nowhere or twice to one folder: a class would be lost or doubled."""
    if tree.dangling:
        first = printable(tree.root / tree.dangling[0])
        raise UserError(
            f"{len(tree.dangling):,} links lead nowhere, first {first}. Bring what they name, or "
            "remove them",
            [f"{printable(path)}: a link that leads nowhere" for path in tree.dangling],
        )
    if tree.twice:
        first, again = (printable(path) for path in tree.twice[0])
        raise UserError(
            f"{first or 'dataset.root'} and {again} are one folder, by a link: its images would "
            "count twice. Remove one of them",
            [f"{printable(a)} and {printable(b)} are one folder" for a, b in tree.twice],
        )


def _as_typed(folders: Folders, splits: Mapping[str, str | Sequence[str]]) -> Places:
    places: Places = {}
    for split, names in splits.items():
        if split_name(split) != split:
            raise UserError(
                f"dataset.splits: {split} is not a split. Use train, val, test or test_<name>"
            )
        for name in [names] if isinstance(names, str) else names:
            home = str(name).strip("/")
            if not folders.below[home]:
                raise UserError(
                    f"dataset.splits: {split}={home} is not a folder of class folders in "
                    f"{printable(folders.root)}. Use paths below it, such as "
                    f"{', '.join(map(printable, folders.below[''][:3]))}"
                )
            places |= {joined(home, inner): (split, inner) for inner in folders.below[home]}
    if "train" not in splits:
        raise UserError("dataset.splits has no train. Name its folder, too: {train: ...}")
    return places


def _roles(folders: Folders) -> dict[str, str]:
    """Return the split of each top folder that holds folders and is named as a split."""
    inner = [name for name in folders.below[""] if folders.below[name]]
    roles = {name: split for name in inner if (split := split_name(name))}
    # seg_train and seg_test: what is around the word of a split is the same
    around = {name: around_split(name) for name in inner if name not in roles}
    shared: dict[str, set[str]] = defaultdict(set)
    for split, words in around.values():
        shared[words].add(split)
    alike = {name: split for name, (split, words) in around.items() if len(shared[words]) > 1}
    return roles | {name: split for name, split in alike.items() if split}


def _split_first(folders: Folders, roles: Mapping[str, str], layout: Layout) -> Places | None:
    """Return the places of ``<split>/<class>/``; None if the folder called train is a class."""
    for split, count in Counter(roles.values()).items():
        if count > 1:
            names = sorted(name for name, role in roles.items() if role == split)
            mapping = f"{{{split}: [{', '.join(map(literal, names))}], ...}}"
            raise UserError(
                f"{printable(folders.root)} has {' and '.join(map(printable, names))}, both of "
                f"which may be {split}. Keep one, or use {_to_paste('splits', mapping)}"
            )
    if "train" not in roles.values():
        first = min(roles)
        raise UserError(
            f"{printable(folders.root)} has {printable(first)}/ but no train/ with class folders. "
            f"Add it, or use {TYPE_NONE}"
        )
    homes = {split: name for name, split in roles.items()}
    for split, home in homes.items():
        if folders.is_wrapper(home):
            homes[split] = joined(home, folders.holding(home)[0])
    classes = set(folders.below[homes["train"]])
    _refuse_unnamed_splits(folders, roles, classes)
    places = {
        joined(home, name): (split, name)
        for split, home in homes.items()
        for name in folders.below[home]
    }
    return _inspection(folders, homes, layout) or places


def _refuse_unnamed_splits(
    folders: Folders, roles: Mapping[str, str], classes: Iterable[str]
) -> None:
    """Refuse folders beside train that may be splits, or classes as train may be."""
    besides = [name for name in folders.holding() if name not in roles and not split_name(name)]
    alike = [name for name in besides if len(set(folders.holding(name)) & set(classes)) > 1]
    if alike:
        raise UserError(
            f"{printable(alike[0])}/ has class folders as train has, but is named as no split. "
            f"Call it val, test or test_<name>, or use {TYPE_ROLES}"
        )
    flat = [name for name in folders.holding() if split_name(name) and name not in roles]
    if besides and len(roles) == 1 and not flat:
        (train,) = roles
        raise UserError(
            f"{printable(train)}/ may be a split or a class beside {printable(besides[0])}/. Use "
            f"{_to_paste('splits', f'{{train: {literal(train)}}}')}, or {TYPE_NONE}"
        )


def _inspection(folders: Folders, homes: Mapping[str, str], layout: Layout) -> Places | None:
    """Return the places of MVTec's layout, whose train has good parts alone: splits joined."""
    classes = {split: folders.holding(home) for split, home in homes.items()}
    trained = classes["train"]
    if len(trained) != 1 or not is_good(trained[0]) or set(classes.get("test", ())) <= set(trained):
        return None
    layout.rule = "all splits of the layout joined: its train has good parts alone"
    layout.warnings.append(
        f"train/ has no class but {printable(trained[0])}, as MVTec's: all its splits are joined, "
        "and train, val and test are divided anew by the fixed rule"
    )
    paths = [(joined(homes[split], name), name) for split in homes for name in classes[split]]
    return {path: ("train", name) for path, name in paths}


def _refuse_flat_splits(folders: Folders) -> None:
    """Refuse ``train/*.jpg`` beside ``test/*.jpg``: nothing says what is in the images."""
    flat = [n for n in folders.holding() if split_name(n) and not folders.holding(n)]
    if len({split_name(name) for name in flat}) > 1:
        raise UserError(
            f"{' and '.join(map(printable, flat))} hold images and no class folders. Put each "
            "class's images in its own folder, or give a CSV of paths and labels: "
            f"dataset.root=labels.csv; {TYPE_NONE}"
        )


def _class_first(folders: Folders) -> Places | None:
    """Return the places of ``<class>/<split>/``; None if no inner folder is named as a split."""
    tops = folders.holding()
    splits = {top: [n for n in folders.holding(top) if split_name(n)] for top in tops}
    first = next((top for top in tops if splits[top]), None)
    if first is None:
        return None
    deep = joined(first, splits[first][0])
    if folders.holding(deep) and not folders.direct[deep]:
        raise UserError(
            f"{printable(folders.root)} holds folders with splits and classes of their own. Use "
            f"one of them, {_to_paste('root', folders.root / first)}"
        )
    for top in tops:
        if folders.direct[top] or set(folders.holding(top)) != set(splits[top]):
            raise UserError(
                f"{printable(deep)}/ may be a split, but {printable(top)}/ is not divided so. "
                f"Divide every class, or use {TYPE_NONE}"
            )
    return {joined(top, name): (split_name(name), top) for top in tops for name in splits[top]} | {
        top: ("train", top) for top in folders.below[""] if top not in tops
    }


def _refuse_not_classes(folders: Folders) -> None:
    """Refuse top folders that are each a whole dataset, or kinds of files."""
    tops = folders.holding()
    root = printable(folders.root)
    if len(tops) == 1 and folders.holding(tops[0]) and not folders.direct[tops[0]]:
        raise UserError(
            f"{root} has one folder, which holds further ones: as a class that is nothing to "
            f"tell apart. Use {_to_paste('root', folders.root / tops[0])}"
        )
    if len(tops) < 2:
        return
    if all(name.casefold() in KINDS for name in tops):
        raise UserError(
            f"{', '.join(map(printable, tops))} are kinds of files and not classes. Put each "
            f"class's images in its own folder, or use {TYPE_NONE}"
        )
    same = set.intersection(*(set(folders.holding(top)) for top in tops))
    if len(same) > 1 and not any(folders.direct[top] for top in tops):
        first = ", ".join(map(printable, sorted(same)[:3]))
        raise UserError(
            f"{', '.join(map(printable, tops[:3]))} hold no images but all the same folders "
            f"({first}), so they may be splits, sources or classes. Use {TYPE_ROLES}, or "
            f"{TYPE_NONE}"
        )


def _warn_of_depth(folders: Folders, layout: Layout) -> None:
    deep = [top for top in folders.holding() if len(folders.holding(top)) > 1]
    if deep:
        first = joined(deep[0], folders.holding(deep[0])[0])
        layout.warnings.append(
            f"{len(deep):,} class folders hold further folders, such as {printable(first)}/: their "
            "images are of the top folder's class"
        )


def _fill(layout: Layout, tree: Tree, places: Places) -> None:
    """Give each image to the class folder that it is in."""
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    order = {"train": 0, "val": 1, "test": 2}
    by_split = sorted(places.items(), key=lambda item: (order.get(item[1][0], 3), item[1]))
    for folder, (split, name) in by_split:
        if NOT_UTF8.search(name):
            raise UserError(
                f"{printable(tree.root / folder)}: the name of this class folder is not UTF-8. "
                "Rename it"
            )
        layout.listed.setdefault(split, {}).setdefault(identifier(name), [])
        names[split, identifier(name)].add(name)
    layout.warnings += [
        f"{len(same)} class folders {split}/{name} look the same, their letters being composed "
        "differently: they are taken for one class"
        for (split, name), same in names.items()
        if len(same) > 1
    ]
    for image in tree.images:
        homes = (str(parent) for parent in PurePosixPath(image).parents)
        place = next((places[home] for home in homes if home in places), None)
        if place is None:
            layout.left_out.append(image)
        else:
            layout.listed[place[0]][identifier(place[1])].append(image)


def _to_paste(key: str, value: object) -> str:
    return shell([f"dataset.{key}={value}"])
