"""Files from the network: resumed where they were cut off, under their own name only when whole.

torch.hub and pooch start again from nothing, the Hugging Face hub's client resumes without checking
that it is still the same file, fsspec needs another HTTP library and has no checksums.
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

UNASKED = 5e9  # bytes; a run does not fetch more by itself


@dataclass(frozen=True)
class Remote:
    """A file that anyone may fetch; its size and digests are None where nobody publishes them.

    Attributes:
        url: http or https.
        name: its path below the dataset's root.
        size: in bytes.
        md5, sha256: hex digests.
        unpack: the folder below the root to unpack a tar or zip in, ``.`` for the root itself; a
            fetched archive is deleted then. None for a file that is not unpacked.
        makes: paths below the root, other than the file's, that exist afterwards; while all of
            them do, nothing is fetched.
    """

    url: str
    name: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    unpack: str | None = None
    makes: Sequence[str] = ()

    def there(self, root: Path) -> bool:
        """Return whether all that it makes is below a root."""
        return all((root / path).exists() for path in self.makes or (self.name,))


def refuse_unasked(files: Sequence[Remote], root: Path) -> None:
    """Refuse to fetch more than :data:`UNASKED` bytes for a run, and name the command that does."""
    missing = [file for file in files if not file.there(root)]
    size = sum(file.size or 0 for file in missing)
    if size > UNASKED:
        raise UserError(
            f"{', '.join(file.name for file in missing)} ({size / 1e9:.0f} GB) are not in {root}. "
            "Run python -m clipbench.data fetch, or set dataset.root"
        )


def bring(files: Sequence[Remote], root: Path) -> None:
    """Fetch and unpack those files that do not exist yet.

    An archive that was put in its place by hand is checked and unpacked like a fetched one.

    Raises:
        UserError: with each file, its address and its place, if one cannot be fetched.
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
        missing = [file for file in files if not file.there(root)]
        raise UserError(
            f"{', '.join(file.name for file in missing)} cannot be fetched ({failure}). Get "
            f"{' '.join(file.url for file in missing)} elsewhere and put it under that name into "
            f"{root}, or set dataset.root",
            [f"{file.url} -> {root / file.name}" for file in missing],
        ) from None


def _bring(file: Remote, root: Path) -> None:
    target = root / file.name
    by_hand = target.exists()
    if not by_hand:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(file, target)
    elif fault := wrong(file, target):
        raise Failed(f"{target} is there, but {fault}: delete it")
    if file.unpack is not None:
        extract(target, root / file.unpack)
        if not file.there(root):
            raise Failed(f"{target.name} does not hold {', '.join(file.makes)}")
        if not by_hand:
            target.unlink()


def _fetch(file: Remote, target: Path) -> None:
    part = Path(f"{target}.part")
    # A part that is there may be of another file: then once more from nothing.
    for _ in range(2 if length(part) else 1):
        receive(file.url, part, file.size, checked=bool(file.md5 or file.sha256))
        if not (fault := wrong(file, part)):
            part.replace(target)
            tag(part).unlink(missing_ok=True)
            sync_folder(target.parent)
            return
        part.unlink()
    raise Failed(f"{urlsplit(file.url).netloc} sends another file, {fault}")


def wrong(file: Remote, path: Path) -> str | None:
    """Return how a file on disk differs from the published one; None if it does not."""
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
    """Lock a folder against other processes that download to it.

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
