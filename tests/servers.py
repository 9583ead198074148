"""A real HTTP server on this machine that supports ranges, and misbehaves on demand."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Site:
    """What a server has, and how it behaves.

    Attributes:
        files: content by path.
        etag: the version it names; None for none.
        ranges: whether it heeds Range.
        cut: bytes after which it closes each connection.
        stall: bytes after which it falls silent.
        shift: by how much the part it sends starts elsewhere than asked.
        chunked: send no length but chunks.
        moved: addresses to redirect to, by path.
        status: answer everything with this.
        seen: the Range header of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"1"'
    ranges: bool = True
    cut: int | None = None
    stall: int | None = None
    shift: int = 0
    chunked: bool = False
    moved: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    kind: str = "application/octet-stream"
    slow: float = 0.0
    seen: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers["Range"]
        site.seen.append(wanted)
        self.close_connection = True
        if self.path in site.moved:
            return self._head(302, {"Location": site.moved[self.path], "Content-Length": "0"})
        content = site.files.get(self.path)
        if site.status or content is None:
            return self._head(site.status or 404, {"Content-Length": "0"})
        versions = {"ETag": site.etag} if site.etag else {}
        versions["Content-Type"] = site.kind
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and site.ranges else 0
        same = self.headers["If-Range"] in (None, site.etag)
        if not (start and same):
            start = 0
        if start >= len(content) > 0:
            return self._head(416, {"Content-Range": f"bytes */{len(content)}"})
        if start:
            start += site.shift
            named = f"bytes {start}-{len(content) - 1}/{len(content)}"
            length = str(len(content) - start)
            self._head(206, {**versions, "Content-Range": named, "Content-Length": length})
        elif site.chunked:
            self._head(200, {**versions, "Transfer-Encoding": "chunked"})
        else:
            self._head(200, {**versions, "Content-Length": str(len(content))})
        self._send(content[start:])

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content: bytes) -> None:
        site = self.site
        whole = site.cut is None and site.stall is None
        content = content if whole else content[: site.cut or site.stall]
        pieces = [content[i : i + 4096] for i in range(0, len(content), 4096)]
        try:
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if site.chunked else piece)
                time.sleep(site.slow)
            if site.chunked and whole:
                self.wfile.write(b"0\r\n\r\n")
            if site.stall is not None:
                self.wfile.flush()
                time.sleep(2)
        except OSError:
            pass  # whoever asked is gone


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site, whose ``url`` is then set."""
    handler = type("SiteHandler", (Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
