"""Decoded images kept on disk: made once, then only read, by every later epoch, rank and job."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import PIL
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clipbench.core.console import console, track
from clipbench.core.locking import wait_for_lock
from clipbench.loading.images.decoding import FORMATS, Source, file_of, opened
from clipbench.loading.images.integrity import pool
from clipbench.transforms.preprocess import Deterministic, ImageInput

LAYOUT = 1  # a new number when the files of a cache change
GB = 10**9


About = dict[str, Any]  # of JSON: all that decides on the pixels of a cache


class Kept:
    """The images of a split by position, uint8 (3, H, W), memory-mapped.

    Args:
        folder: holds ``pixels`` (one after the other), ``shapes.npy`` and ``about.json``.
        planar: whether ``pixels`` holds an image as (3, H, W); else as it was decoded, (H, W, 3).
    """

    def __init__(self, folder: Path, planar: bool) -> None:
        self.folder, self.planar = folder, planar
        self.shapes: NDArray[np.int64] = np.load(folder / "shapes.npy")
        self.ends = np.cumsum(3 * self.shapes.prod(1))
        self._pixels: np.memmap[Any, np.dtype[np.uint8]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}  # a pickled memory map is a copy of it all

    def __call__(self, index: int) -> Tensor:
        """Return the image at a position, which must not be changed in place."""
        if self._pixels is None:  # copy-on-write, since torch warns of arrays that are read-only
            self._pixels = np.memmap(self.folder / "pixels", np.uint8, "c")
        height, width = self.shapes[index].tolist()
        end = int(self.ends[index])
        flat = torch.from_numpy(self._pixels[end - 3 * height * width : end])
        if self.planar:
            return flat.view(3, height, width)
        return flat.view(height, width, 3).permute(2, 0, 1)


def kept(
    sources: Sequence[Source],
    geometry: Deterministic | None,
    look: Callable[[int], ImageInput],
    *,
    reading: About,
    limit_gb: float,
    folder: Path,
) -> Kept | None:
    """Return the decoded images of a split, decoding them unless another job has.

    ``look`` returns the image at a position after ``geometry``, the deterministic part of a view or
    None for whole images; ``reading`` is what else decides on the pixels, such as the decoder.

    Returns:
        None, after printing why, if all caches of the folder would take more than the limit, in
        units of 10^9 bytes, or these images more than half of the free disk.
    """
    about = _about(sources, geometry, reading)
    home = folder / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    if _whole(home, about):
        return Kept(home, planar=geometry is not None)
    folder.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(home.with_suffix(".lock")) as locked:
        if not _whole(home, about):  # another job may have made it while this one waited
            for part in folder.glob(f"{home.name}.*.part") if locked else ():
                shutil.rmtree(part, ignore_errors=True)  # of a job that was killed
            if refusal := _too_large(sources, geometry, limit_gb, folder):
                console.print(f"no cache of decoded images: {refusal}", highlight=False)
                return None
            _make(home, about, look)
    return Kept(home, planar=geometry is not None)


def _about(sources: Sequence[Source], geometry: Deterministic | None, reading: About) -> About:
    """Return what decides on the pixels; of the files the path, offset, size and times."""
    status = {path: path.stat() for path in set(map(file_of, sources))}
    manifest = hashlib.sha256()
    for source in sources:
        file = status[file_of(source)]
        stamp = f"{file.st_size}\t{file.st_mtime_ns}\t{file.st_ctime_ns}"
        manifest.update(f"{source!r}\t{stamp}\n".encode())
    return {
        "layout": LAYOUT,
        "n": len(sources),
        "pictures": manifest.hexdigest(),
        "geometry": None if geometry is None else asdict(geometry),
        "reading": reading,
        # A resize may differ in its last bit from one version, or one processor, to the next.
        "versions": [torch.__version__, torchvision.__version__, PIL.__version__],
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _whole(home: Path, about: About) -> bool:
    """Return whether the cache exists, is of these files, and is unchanged since."""
    try:
        stored = json.loads((home / "about.json").read_text())
        return bool(stored == {**about, "files": _stamps(home)})
    except (OSError, ValueError):
        return False


def _stamps(home: Path) -> dict[str, list[int]]:
    files = {name: (home / name).stat() for name in ("pixels", "shapes.npy")}
    return {name: [file.st_size, file.st_mtime_ns] for name, file in files.items()}


def _too_large(
    sources: Sequence[Source], geometry: Deterministic | None, limit_gb: float, folder: Path
) -> str | None:
    used = sum(file.stat().st_size for file in folder.glob("*/pixels"))
    free = shutil.disk_usage(folder).free
    room = min(limit_gb * GB - used, free / 2)
    needed = 0
    for source in sources:
        needed += 3 * (geometry.size**2 if geometry else _area(source))
        if needed > room:  # the other headers need not be read
            break
    else:
        return None
    if room == free / 2:
        return f"it would take more than half of the {free / GB:.1f} GB free on the disk"
    others = f", of which {used / GB:.1f} GB are taken in {folder}" if used else ""
    return f"it would take more than dataset.cache_gb={limit_gb:g}{others}"


def _area(source: Source) -> int:
    with opened(source) as file, Image.open(file, formats=FORMATS) as image:
        return image.width * image.height


def _make(home: Path, about: About, look: Callable[[int], ImageInput]) -> None:
    """Write a cache beside its place, and rename it when it is whole."""
    part = home.with_name(f"{home.name}.{uuid4().hex}.part")
    part.mkdir()
    try:
        shapes = []
        images = track(_each(look, about["n"]), "decoding images", total=about["n"])
        with (part / "pixels").open("wb") as file:
            for pixels in images:
                rows = pixels if about["geometry"] else pixels.transpose(1, 2, 0)
                shapes.append(pixels.shape[1:])
                file.write(np.ascontiguousarray(rows).data)
            file.flush()
            os.fsync(file.fileno())
        np.save(part / "shapes.npy", np.array(shapes, np.int64).reshape(-1, 2))
        for name in ("pixels", "shapes.npy"):
            (part / name).chmod(0o444)
        (part / "about.json").write_text(json.dumps({**about, "files": _stamps(part)}, indent=1))
        _put(part, home, about)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put(part: Path, home: Path, about: About) -> None:
    if home.exists() and not _whole(home, about):  # torn, or foreign
        home.rename(part / "spoilt")
    try:
        part.rename(home)
    except OSError:
        if not _whole(home, about):  # without locks another job may have been first
            raise
    shutil.rmtree(home / "spoilt", ignore_errors=True)


def _each(look: Callable[[int], ImageInput], n: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in order, uint8 (3, H, W), decoded in threads."""

    def array(index: int) -> NDArray[np.uint8]:
        image = look(index)
        return image.numpy() if isinstance(image, Tensor) else np.asarray(image).transpose(2, 0, 1)

    with pool() as threads:
        for start in range(0, n, 64):  # few at once: they may be large
            yield from threads.map(array, range(start, min(start + 64, n)))
