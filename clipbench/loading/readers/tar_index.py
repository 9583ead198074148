"""What a webdataset shard holds, listed once from its headers and kept for the next time.

The conventions are webdataset's: members are grouped by the name up to its first dot; ``.jpg`` and
the like hold the image, ``.cls`` the label, ``.txt`` captions, a line each, ``.json`` either.
Nothing is unpacked.
"""

import hashlib
import json
import re
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from clipbench.core import files, paths
from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import EXTENSIONS, Member

LAYOUT = 2  # a new number where what is kept of a shard changes
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # as webdataset divides a member's name
_META = re.compile(r"__[^/]*__(/|$)")
_PACKED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
_TEXTS = ("cls", "txt", "json")
_BLOCK = 512
_MOST = 2**24  # bytes of a label or of captions; more is something else


@dataclass
class Sample:
    """The members whose name up to its first dot is ``key``.

    The label and the captions are those of ``.cls`` and ``.txt``, or else of the json.
    """

    key: str
    images: list[Member] = field(default_factory=list)
    label: str | None = None
    captions: list[str] = field(default_factory=list)


def index(shard: Path) -> tuple[list[Sample], int]:
    """Return a shard's samples, and how many members belong to none; cached for the next call.

    Raises:
        UserError: if it is compressed, cut off or damaged, or a member occurs twice.
    """
    status = shard.stat()
    times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
    of = f"{LAYOUT}\0{shard.resolve()}\0{status.st_size}\0{times}"
    cache = paths.outputs() / "cache" / "shards" / f"{hashlib.sha256(of.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        stored = json.loads(cache.read_text())
        return [
            Sample(key, [Member(shard, *image) for image in images], *texts)
            for key, images, *texts in stored["samples"]
        ], stored["others"]
    with shard.open("rb") as start:
        head = start.read(6)
    for mark, tool in _PACKED.items():
        if head.startswith(mark):
            raise UserError(
                f"{shard} is compressed, so its images cannot be read in place; {tool} it"
            )
    samples, others = _listed(shard)
    with suppress(UserError):  # a disk that is not writable costs time, not the run
        images = [[(m.offset, m.size, m.name) for m in sample.images] for sample in samples]
        rows = [[s.key, own, s.label, s.captions] for s, own in zip(samples, images, strict=True)]
        files.write_text(cache, json.dumps({"samples": rows, "others": others}))
    return samples, others


def _listed(shard: Path) -> tuple[list[Sample], int]:
    samples: dict[str, Sample] = {}
    others, end, names = 0, 0, set[str]()
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                parts = _KEY.fullmatch(member.name)
                if not member.isreg() or member.issparse() or not parts or _META.match(parts[0]):
                    others += not member.isdir()
                    continue
                key, suffix = parts[1], parts[2].lower()
                if f"{key}.{suffix}" in names:
                    raise UserError(f"{shard}#{member.name} occurs twice. Write the shard anew")
                names.add(f"{key}.{suffix}")
                _take(tar, shard, member, suffix, samples.setdefault(key, Sample(key)))
            tar.fileobj.seek(end)
            after = tar.fileobj.read(_BLOCK)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{shard} is cut off or damaged ({error}). Download it again") from error
    if after != bytes(_BLOCK):  # tarfile takes a damaged header for the end
        raise UserError(f"{shard} is cut off or damaged at byte {end:,}. Download it again")
    return list(samples.values()), others


def _take(
    tar: tarfile.TarFile, shard: Path, member: tarfile.TarInfo, suffix: str, sample: Sample
) -> None:
    if f".{suffix.rpartition('.')[2]}" in EXTENSIONS:
        sample.images.append(Member(shard, member.offset_data, member.size, member.name))
    elif suffix in _TEXTS:
        content = tar.extractfile(member)
        if content is None or member.size > _MOST:
            raise UserError(f"{shard}#{member.name} is too large for text. Leave it out")
        try:
            _note(suffix, content.read().decode("utf-8"), sample)
        except ValueError as error:
            raise UserError(f"{shard}#{member.name} is damaged ({error}). Fix it") from error


def _note(suffix: str, text: str, sample: Sample) -> None:
    """Keep a label or captions; those of a json only where ``.cls`` or ``.txt`` has none."""
    if suffix == "cls":
        sample.label = text.strip()
    elif suffix == "txt":
        sample.captions = [line for line in re.split("\r\n|\n|\r", text) if line.strip()]
    elif isinstance(fields := json.loads(text), dict):
        label = fields.get("label", fields.get("cls"))
        captions = fields.get("captions", fields.get("caption", fields.get("text")))
        if sample.label is None and label is not None:
            sample.label = str(label)
        if not sample.captions and captions is not None:
            several = captions if isinstance(captions, list) else [captions]
            sample.captions = [str(caption) for caption in several]
