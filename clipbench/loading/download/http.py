"""One file over several HTTP connections, each going on where the last was cut off."""

import errno
import os
import re
import shutil
import threading
import time
from concurrent.futures import Future, wait
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from rich import progress
from rich.filesize import decimal

from clipbench.core.console import console

ANSWER, STALL = 20.0, 20.0  # seconds until a server answers; between two pieces of a file
TRIES = 4  # connections in a row without anything new
PIECE = 1 << 18  # bytes
_PAUSE = 1.0  # seconds before the first of those, doubled each time
_SPARE = 64 << 20  # bytes of a disk that are left free


class Failed(Exception):
    """Why a file could not be fetched."""


def receive(url: str, part: Path, size: int | None, checked: bool) -> None:
    """Fill a file of ``size`` bytes, if known, going on where an earlier attempt left it.

    The server's name for its version is kept beside it, under ``.tag``. ``checked`` says that a
    checksum will tell whether its two ends are of the same file.

    Raises:
        Failed: if it cannot be fetched.
    """
    if not re.match("https?://", url):
        raise Failed(f"{url} is not an http address")
    tries = 0
    while size is None or length(part) != size:
        before = length(part)
        try:
            return _transfer(url, part, size, checked)
        except HTTPError as error:
            if error.code == 416 and before:  # nothing after what is here: it was another file
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise Failed(f"HTTP {error.code} {error.reason}") from None
            reason: object = f"HTTP {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Failed(f"the disk of {part.parent} is full; make room") from None
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        gained = length(part) > before
        tries = 0 if gained else tries + 1
        if tries == TRIES or not (before or gained):  # a server that never answered is given up
            raise Failed(str(reason).splitlines()[0])
        time.sleep(_PAUSE * 2**tries)


def _transfer(url: str, part: Path, size: int | None, checked: bool) -> None:
    """Receive over one connection, from the end of ``part`` if the file is still the same."""
    have = length(part)
    version = tag(part).read_text() if tag(part).exists() else ""
    # Without the server's tag only a checksum could tell that two ends don't fit together.
    if not (version or checked) or have > (size or have):
        have = 0
    headers = {"User-Agent": "clipbench", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
    with _open(Request(url, headers=headers)) as answer, part.open("ab") as out:
        start, total = _extent(answer)
        _expected(answer.headers, total, size, checked)
        if start > have or (start and version and _version(answer.headers) != version):
            out.truncate(0)
            raise ConnectionError(f"asked from byte {have} on, it sends another part")
        if length(part) != start:
            out.truncate(start)
        _room(part, start, size or total)
        tag(part).write_text(_version(answer.headers))
        _copy(answer, out, part.stem, start, total)
        out.flush()
        os.fsync(out.fileno())
    if total is not None and length(part) < total:
        raise ConnectionError(f"cut off at {length(part):,} of {total:,} bytes")


def _expected(headers: Message, total: int | None, size: int | None, checked: bool) -> None:
    """Refuse a response whose headers show that it is another file."""
    if total is not None and size not in (None, total):
        raise Failed(f"{total:,} bytes are offered, {size:,} expected")
    if checked or size is not None:
        return
    if total is None and headers["Transfer-Encoding"] != "chunked":
        raise Failed("the server does not say where it ends")
    # A .gz may be called encoded for what it is, which a checksum or the size would show.
    if headers.get("Content-Encoding", "identity") != "identity":
        raise Failed("the server sends it compressed, unasked")
    if headers.get_content_type() == "text/html":
        raise Failed("the server sends a web page")


def _version(headers: Message) -> str:
    """Return the server's validator of the file it sends, as If-Range takes it."""
    name: str = headers["ETag"] or "W/"
    return str(headers["Last-Modified"] or "") if name.startswith("W/") else name


def _extent(answer: Any) -> tuple[int, int | None]:
    """Return the first byte of a response, and the size of the whole file if it is stated."""
    if answer.status == 206:
        value = answer.headers["Content-Range"] or ""
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", value)
        if match is None:
            raise Failed(f"the server sends a part that it does not name ({value})")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    value = answer.headers["Content-Length"]
    return 0, None if value is None else int(value)


def _copy(answer: IO[bytes], out: IO[bytes], name: str, done: int, total: int | None) -> None:
    if not console.is_terminal:
        size = "" if total is None else f", {decimal(total)}"
        console.print(f"fetching {name}{size}" + (f", from {decimal(done)} on" if done else ""))
    columns = (*progress.Progress.get_default_columns(), progress.DownloadColumn())
    hidden = not console.is_terminal
    with progress.Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(f"fetching {name}", total=total, completed=done)
        while piece := answer.read(PIECE):
            out.write(piece)
            bar.advance(task, len(piece))


class _Redirects(HTTPRedirectHandler):
    """Redirects to http and https only, and never from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise Failed(f"it leads on to {newurl}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: Request) -> Any:
    """Return a server's response, or raise an OSError within :data:`ANSWER` seconds.

    In a daemon thread, since neither name look-up nor a host of many addresses respects the
    timeout, and an executor's thread would be waited for at exit.
    """
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            answer.set_result(build_opener(_Redirects).open(request, timeout=STALL))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    wait([answer], ANSWER)
    if not answer.done():
        raise TimeoutError(f"no answer in {ANSWER:.0f} s")
    return answer.result()


def _room(part: Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free - _SPARE:
        lack = f"{decimal(total - start)} to come, {decimal(free)} free"
        raise Failed(f"the disk of {part.parent} is too small: {lack}; make room")


def length(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def tag(part: Path) -> Path:
    """Return the file with the server's validator of a partial file."""
    return Path(f"{part}.tag")
