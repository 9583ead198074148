"""Images that belong to no dataset: a file, a folder, or tar shards."""

from collections.abc import Iterator
from pathlib import Path

from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import EXTENSIONS, Source
from clipbench.loading.images.folder_walk import walk
from clipbench.loading.readers import webdataset
from clipbench.loading.readers.tar_index import index
from clipbench.loading.split import Split


def loose(where: Path) -> Split:
    """Return all images of a file, a folder and those below it, or tar shards, unlabelled.

    Their ids are paths below the folder, or names in the tar.

    Raises:
        UserError: if it does not exist, or holds no image.
    """
    if webdataset.matches(where):
        images = dict(_members(where))
    elif where.is_file():
        images = {where.name: where}
    elif where.is_dir():
        images = {name: where / name for name in walk(where).images}
    else:
        raise UserError(f"{where} does not exist. Name an image, a folder of them, or a tar")
    if not images:
        endings = " ".join(sorted(EXTENSIONS))
        raise UserError(f"{where} holds no image. Names must end in one of {endings}")
    return Split.unlabelled(images)


def _members(where: Path) -> Iterator[tuple[str, Source]]:
    shards = [shard for part in webdataset.files(where).values() for shard in part]
    for shard in shards:
        home = f"{shard.name}#" if len(shards) > 1 else ""
        for sample in index(shard)[0]:
            yield from ((home + member.name, member) for member in sample.images)
