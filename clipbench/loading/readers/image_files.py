"""Images that belong to no dataset: a file, a folder, or tar shards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import EXTENSIONS, Member, Source
from clipbench.loading.images.folder_walk import walk
from clipbench.loading.readers import webdataset
from clipbench.loading.readers.tar_index import index
from clipbench.loading.split import Split


def loose(where: Path) -> Split:
    """All images of a place, by name, unlabelled.

    Args:
        where: an image, a folder and those below it, as a run walks through them, or tar shards,
            as ``dataset.root`` takes them.

    Returns:
        A split whose ids are paths below the folder, or names in the tar.

    Raises:
        UserError: if there is nothing, or no image.
    """
    if where.is_file() and not webdataset.meant(where):
        found: dict[str, Source] = {where.name: where}
    elif where.is_dir() and not webdataset.meant(where):
        found = {name: where / name for name in walk(where).images}
    elif where.is_dir() or webdataset.meant(where):
        found = dict(_members(where))
    else:
        raise UserError(f"{where} does not exist. Name an image, a folder of them, or a tar")
    if not found:
        known = " ".join(sorted(EXTENSIONS))
        raise UserError(f"there is no image in {where}. Names must end in one of {known}")
    nobody = np.full(len(found), -1, dtype=np.int64)
    return Split(list(found), nobody, list(found.values()), expected=len(found))


def _members(where: Path) -> Iterator[tuple[str, Source]]:
    found = [shard for shards_ in webdataset.files(where).values() for shard in shards_]
    for shard in found:
        home = f"{shard.name}#" if len(found) > 1 else ""
        for sample in index(shard)[0]:
            for name, offset, size in sample.images:
                yield home + name, Member(shard, offset, size, name)
