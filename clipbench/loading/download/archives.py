"""Archives unpacked so that nothing lands outside their folder, and nothing half."""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from clipbench.core.console import console, track
from clipbench.core.errors import UserError

MEMBERS = 5_000_000  # of an archive; more would eat the disk's inodes
_SPARE = 64 << 20  # bytes of the disk that are left free
_DAMAGED = (tarfile.ReadError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar (compressed or not) or zip into a folder.

    It is unpacked beside it first, then each top folder and file is renamed to its place. Links are
    kept only if they lead deeper into the archive's own folder.

    Raises:
        UserError: if a member would land elsewhere, or is neither a file, a folder nor such a link;
            if the archive is damaged; if what it holds does not fit on the disk.
    """
    beside = folder / f".{archive.name}.unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    if not console.is_terminal:
        console.print(f"unpacking {archive.name}")
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, beside)
        else:
            _untar(archive, beside)
        for path in sorted(beside.iterdir()):
            _move(path, folder / path.name)
    except (*_DAMAGED, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"{archive} is damaged ({error}). Delete it and download it again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _untar(archive: Path, into: Path) -> None:
    room = _Room(archive, into)
    with tarfile.open(archive) as tar:
        for member in track(tar, f"unpacking {archive.name}"):
            _within(archive, member.name)
            if member.islnk() or member.issym():
                _within(archive, member.linkname, f"{member.name}, a link to ")
            elif not (member.isreg() or member.isdir()):
                raise _refusal(archive, f"{member.name}, neither file nor folder")
            room.take(member.name, member.size)
            try:
                tar.extract(member, into, filter="data")
            except tarfile.FilterError as error:
                raise _refusal(archive, f"{member.name}: {error}") from error
            except KeyError:
                raise _refusal(archive, f"{member.name}, a link to nothing") from None
        # tarfile takes a cut within or before a header for the end, which is a block of zeros.
        if tar.fileobj is None or tar.fileobj.tell() != tar.offset + tarfile.BLOCKSIZE:
            raise EOFError("it is cut off")


def _unzip(archive: Path, into: Path) -> None:
    room = _Room(archive, into)
    with zipfile.ZipFile(archive) as bundle:
        for member in track(bundle.infolist(), f"unpacking {archive.name}"):
            _within(archive, member.orig_filename)
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where it was not made on Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, f"{member.filename}, neither file nor folder")
            room.take(member.filename, member.file_size)
            bundle.extract(member, into)


def _within(archive: Path, name: str, before: str = "") -> None:
    """Refuse a path that could leave the folder on any system.

    ``filter="data"`` resolves links on the disk, which very long names have misled (CVE-2025-4517).
    """
    windows = PureWindowsPath(name)
    leaves = ".." in windows.parts or PurePosixPath(name).is_absolute() or windows.anchor
    if leaves or "\0" in name:
        raise _refusal(archive, f"{before}{name}, outside its folder")


def _refusal(archive: Path, what: str) -> UserError:
    return UserError(f"{archive} is not unpacked: it holds {what}. Get it from its source")


class _Room:
    """Adds up what an archive says it holds, and refuses what does not fit on the disk."""

    def __init__(self, archive: Path, into: Path) -> None:
        self.archive, self.free = archive, shutil.disk_usage(into).free - _SPARE
        self.names: dict[str, str] = {}

    def take(self, name: str, size: int) -> None:
        """Add a member, and refuse one that would overwrite another on a disk without case."""
        self.free -= size
        if self.free < 0 or len(self.names) >= MEMBERS:
            raise UserError(
                f"{self.archive} holds more than the disk of {self.archive.parent} can take, from "
                f"{name} on. Make room, or set dataset.root to a larger disk"
            )
        plain = PurePosixPath(name).as_posix()
        if self.names.setdefault(plain.casefold(), plain) != plain:
            raise _refusal(self.archive, f"{name} beside {self.names[plain.casefold()]}")


def _move(path: Path, target: Path) -> None:
    """Move a file or folder to its place; a folder that exists already is filled up."""
    if path.is_dir() and target.is_dir() and not (path.is_symlink() or target.is_symlink()):
        for child in sorted(path.iterdir()):
            _move(child, target / child.name)
    else:
        path.replace(target)
