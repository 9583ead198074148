"""Files from the network: resumed where they were cut off, under their own name only when whole.

torch.hub and pooch start again from nothing, the Hugging Face hub's client resumes without asking
whether it is still the same file, fsspec needs a further HTTP library and knows no checksums.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from clipbench.core.console import console
from clipbench.core.errors import UserError
from clipbench.core.files import sync_folder
from clipbench.loading.download.archives import extract
from clipbench.loading.download.http import Failed, length, receive, tag

if sys.platform != "win32":
    import fcntl

UNASKED = 5e9  # bytes; a run that would fetch more waits to be asked


@dataclass(frozen=True)
class Remote:
    """A file that anyone may fetch.

    Attributes:
        url: where it is.
        name: what it is called below the dataset's root, with ``/`` between folders.
        size: bytes; None where nobody states them.
        md5: hex digest; None where nobody states it.
        sha256: hex digest; None where nobody states it.
        unpack: of a tar or zip, the folder below the root to unpack it in, ``.`` for the root
            itself; a fetched archive is deleted then. None: the file itself is what is wanted.
        makes: what is below the root afterwards. While all of it is there nothing is fetched.
            Empty for the file itself.
    """

    url: str
    name: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    unpack: str | None = None
    makes: Sequence[str] = ()

    def there(self, root: Path) -> bool:
        """Whether all that it makes is below a root."""
        return all((root / path).exists() for path in self.makes or (self.name,))


def refuse_unasked(files: Sequence[Remote], root: Path) -> None:
    """Refuse to fetch more than :data:`UNASKED` bytes for a run that did not ask for it.

    Raises:
        UserError: naming the files that are not there, and the command that brings them.
    """
    missing = [file for file in files if not file.there(root)]
    size = sum(file.size or 0 for file in missing)
    if size > UNASKED:
        raise UserError(
            f"{', '.join(file.name for file in missing)} ({size / 1e9:.0f} GB) are not in {root}. "
            "Run python -m clipbench.data fetch, or set dataset.root"
        )


def bring(files: Sequence[Remote], root: Path) -> None:
    """Fetch and unpack those files that are not there yet.

    An archive that somebody put at its place by hand is checked and unpacked like a fetched one.

    Raises:
        UserError: naming each file, its address and its place, if one cannot be had.
    """
    if all(file.there(root) for file in files):
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            for file in files:
                if not file.there(root):
                    _bring(file, root)
    except (Failed, OSError) as failure:
        wanted = [file for file in files if not file.there(root)]
        raise UserError(
            f"{', '.join(file.name for file in wanted)} cannot be fetched ({failure}). Get "
            f"{' '.join(file.url for file in wanted)} elsewhere and put it under that name into "
            f"{root}, or set dataset.root",
            [f"{file.url} -> {root / file.name}" for file in wanted],
        ) from None


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
) -> None:
    """Fetch one file, going on from ``<target>.part`` where an earlier attempt left one.

    Args:
        url: http or https.
        target: where it arrives, once it is whole and checked, never before.
        size: in bytes.
        md5: hex digest.
        sha256: hex digest.

    Raises:
        UserError: if it cannot be had, or is not the file that was meant.
    """
    bring([Remote(url, target.name, size, md5, sha256)], target.parent)


def _bring(file: Remote, root: Path) -> None:
    target = root / file.name
    brought = target.exists()
    if brought:
        if amiss := wrong(file, target):
            raise Failed(f"{target} is there, but {amiss}: delete it")
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(file, target)
    if file.unpack is not None:
        extract(target, root / file.unpack)
        if not file.there(root):
            raise Failed(f"{target.name} does not hold {', '.join(file.makes)}")
        if not brought:  # what somebody put there stays
            target.unlink()


def _fetch(file: Remote, target: Path) -> None:
    part = Path(f"{target}.part")
    resumed = length(part) > 0
    checked = bool(file.md5 or file.sha256)
    receive(file.url, part, file.size, checked)
    amiss = wrong(file, part)
    if amiss and resumed:  # the beginning may have been of another file: once more from nothing
        part.unlink()
        receive(file.url, part, file.size, checked)
        amiss = wrong(file, part)
    if amiss:
        part.unlink()
        raise Failed(f"{urlsplit(file.url).netloc} sends another file, {amiss}")
    part.replace(target)
    tag(part).unlink(missing_ok=True)
    sync_folder(target.parent)


def wrong(file: Remote, path: Path) -> str | None:
    """In what a file on disk is not the one that was meant; None if it is."""
    if file.size not in (None, length(path)):
        return f"{length(path):,} bytes, not {file.size:,}"
    for kind, expected in (("md5", file.md5), ("sha256", file.sha256)):
        if expected is not None:
            with path.open("rb") as content:
                actual = hashlib.file_digest(content, kind).hexdigest()
            if actual != expected:
                return f"{kind} {actual}, not {expected}"
    return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder while other processes that download to it wait.

    filelock would leave a lock file in the dataset's folder; flock locks the folder itself.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"another process is downloading to {folder}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # some network disks have no locks; the checksum still finds a mix-up
        yield
    finally:
        os.close(handle)
