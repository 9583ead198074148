"""Checkpoint files that are whole or not there, and that tell whether they have changed since."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from clipbench.core import files
from clipbench.core.errors import UserError

Content = dict[str, Any]  # of a checkpoint: tensors and plain data by name
Seal = Mapping[str, Any]  # JSON values by name
_TAIL = 4096  # bytes; more than any seal has


class Damaged(Exception):
    """A file that is not what was written."""


class _Hashed:
    """A file that only grows, with the hash of its content."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Append; keep the first error, which torch turns into another."""
        try:
            self.file.write(content)
        except OSError as error:
            self.error = error
            raise
        self.hash.update(content)
        self.size += len(content)
        return len(content)

    def flush(self) -> None:
        """Flush the file, as ``torch.save`` does at the end."""
        self.file.flush()


def write(path: Path, content: Content, about: Seal | None = None) -> None:
    """Write beside the target, flush to disk, replace: a reader, or a crash, sees all or nothing.

    The checkpoint remains readable by ``torch.load``; ``about`` is what :func:`verified` returns,
    None for a file without a seal.

    Raises:
        UserError: with status ``interrupted`` if there is no room, or the folder is not writable;
            what was there before stays.
    """
    with files.replacing(path) as file:
        _room(path, content)
        made = _Hashed(file)
        try:
            torch.save(content, made)  # type: ignore[arg-type]  # it asks for no more
        except RuntimeError as error:
            raise made.error or error from error
        if about is not None:
            file.write(b"\n" + json.dumps(_seal(made.hash, made.size, about)).encode())


def _room(path: Path, content: Content) -> None:
    need, free = 2 * _bytes(content), shutil.disk_usage(path.parent).free
    if free < need:
        raise UserError(
            f"{path} needs {need / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free; make room and "
            "run the same command again: it resumes from the checkpoint before",
            status="interrupted",
        )


def _bytes(content: Any) -> int:
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(map(_bytes, content.values()))
    return sum(map(_bytes, content)) if isinstance(content, list | tuple) else 0


def _seal(content: "hashlib._Hash", size: int, about: Seal) -> Seal:
    body = {**about, "bytes": size}
    whole = content.copy()
    whole.update(json.dumps(body, sort_keys=True).encode())
    return {**body, "sha256": whole.hexdigest()}


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(size, 1 << 20))):
        size -= len(chunk)
        yield chunk


def verified(path: Path) -> Seal:
    """Return what the seal of a file holds, once every byte is checked against it.

    Raises:
        Damaged: if the file has changed since it was written.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            ending = file.read().rpartition(b"\n")[2]
            seal = json.loads(ending)
            file.seek(0)
            for chunk in _chunks(file, size - len(ending) - 1):
                digest.update(chunk)
        about = {k: v for k, v in seal.items() if k not in ("bytes", "sha256")}
        if seal != _seal(digest, size - len(ending) - 1, about):
            raise Damaged("it is not what was written")
    except (OSError, ValueError, AttributeError) as error:
        raise Damaged(f"it is not whole ({error})") from error
    return about


def read(path: Path) -> Content:
    """Return the content of a checkpoint, sealed or not, without executing anything in it."""
    content: Content = torch.load(path, map_location="cpu", weights_only=True)
    return content


def sweep(folder: Path) -> None:
    """Remove what a killed writer left unfinished."""
    for path in folder.glob(f"{files.TEMPORARY}*"):
        path.unlink(missing_ok=True)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and that load without executing anything.

    Lightning 2.6 writes to $TMPDIR first: on another file system its rename becomes a copy, and a
    kill or a full disk leaves a torn file where the good one was.
    """

    def save_checkpoint(
        self, checkpoint: Content, path: str | Path, storage_options: Any = None
    ) -> None:
        """Write as :func:`write` does; ``storage_options`` go into the seal."""
        write(Path(path), checkpoint, storage_options)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> Content:
        """Load tensors and plain data only."""
        return read(Path(path))
