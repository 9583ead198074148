"""The images of a folder that are nearest to a text, for any run or model that reads text.

Run: python -m clipbench.search run=DIR images=PATH query="a dog in the snow" [query=...]
     python -m clipbench.search model=NAME [model.key=value ...] images=PATH query="..."

run          a run's folder: its fine-tuned weights; weights=merged takes the best average of a run
             with alphas
model        an option of conf/model instead, such as clip_tiny: its pretrained weights
images       a folder (with those below it), an image, a tar, or shards{000..010}.tar
query        a text, as typed; several give several answers
top          how many images, default 10
out          a folder for the contact sheets; default: searches/ under the outputs root
batch_size   default 64; workers (0) decode beside, device= takes cpu, cuda or mps

Features are cached in cache/search under the outputs root, once for each state of a model: only
images that are new or have changed are embedded, and an interrupted search continues. Scores are
cosines. Each answer is printed, and drawn as one PNG. An image that cannot be read is reported, and
the exit code is 1.
"""

import hashlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.core import cli, paths
from clipbench.core.console import show, warn
from clipbench.core.errors import UserError
from clipbench.results import store

if TYPE_CHECKING:
    from clipbench.inference.embeddings import Gallery
    from clipbench.models.two_towers import TwoTowers

KEYS = ("run", "model", "images", "top", "weights", "out", "batch_size", "workers", "device")


def main() -> None:
    """Search, print and draw the nearest images."""
    cli.opened(__doc__ or "", search)


def search(words: list[str]) -> int:
    """Run the command; return 1 if an image could not be read."""
    queries = [word.removeprefix("query=") for word in words if word.startswith("query=")]
    overrides = [word for word in words if word.startswith("model.")]
    rest = [word for word in words if word not in overrides and not word.startswith("query=")]
    arguments = cli.given(rest, (*KEYS, "query"))
    if not queries or not all(query.strip() for query in queries):
        raise UserError(
            'query= is missing or empty. Give a text, such as query="a dog in the snow".'
        )
    if "images" not in arguments:
        raise UserError("images=PATH is missing. Name a folder of images.")
    top = cli.number(arguments, "top", 10)
    loading = {
        "batch_size": cli.number(arguments, "batch_size", 64),
        "workers": cli.number(arguments, "workers", 0, least=0),
    }
    out = Path(arguments.get("out", paths.outputs() / "searches"))
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is not a folder. Name one for the contact sheets.")
    name = _name(arguments, overrides)

    from clipbench.inference import embeddings, prediction  # torch
    from clipbench.loading.readers.image_files import loose

    where = paths.expanded(arguments["images"])
    split = loose(where)
    tower = embeddings.tower(arguments, name, overrides).to(
        prediction.device(arguments.get("device"))
    )
    place = hashlib.sha256(str(where.resolve()).encode(errors="replace")).hexdigest()[:8]
    kept = paths.outputs() / "cache" / "search"
    kept /= f"{embeddings.fingerprint(tower)[:16]}-{place}.parquet"
    found = embeddings.embedded(tower, split, kept, **loading)
    print(f"{len(found.split):,} images, {found.fresh:,} of them new", file=sys.stderr)
    _answer(tower, found, dict.fromkeys(queries), top, out, name)
    bad = [f"{name}: {why}" for name, why in found.faults.items()]
    if bad:
        cli.refusal(f"{len(bad)} images could not be read:", bad, paths.outputs())
    return 1 if bad else 0


def _name(arguments: cli.Given, overrides: list[str]) -> str:
    """Return the name of the run or model, after a check that the run exists."""
    if ("run" in arguments) == ("model" in arguments):
        raise UserError("Give either run=DIR, or model=NAME for pretrained weights.")
    if "run" in arguments and overrides:
        raise UserError(f"{overrides[0]} applies to model=NAME only; a run has its model already.")
    return (
        store.completed(arguments)[0].resolve().name if "run" in arguments else arguments["model"]
    )


def _answer(
    tower: "TwoTowers", found: "Gallery", queries: dict[str, None], top: int, out: Path, name: str
) -> None:
    """Print the nearest images of each query, and draw them."""
    import torch

    from clipbench.reporting.contact_sheet import contact_sheet

    texts = list(queries)
    for cut in tower.cut(texts):
        warn(f"too long for the model, which does not read its end: {texts[cut]}")
    with torch.inference_mode():
        device = next(tower.parameters()).device
        features = tower.encode_text(tower.tokenizer()(texts).to(device)).float().cpu()
    out.mkdir(parents=True, exist_ok=True)
    for text, feature in zip(texts, torch.nn.functional.normalize(features, dim=-1), strict=True):
        best = found.best(feature, top)
        names = [_printable(found.split.ids[i]) for i, _ in best]
        rows = [
            (rank, f"{score:.4f}", file)
            for rank, (file, (_, score)) in enumerate(zip(names, best, strict=True), 1)
        ]
        show(text, ("rank", "cosine", "file"), rows)
        slug = re.sub(r"\W+", "-", text.lower()).strip("-")[:40]
        digest = hashlib.sha256(f"{text}\n{top}".encode(errors="replace")).hexdigest()[:6]
        sheet = out / f"{name}-{slug}-{digest}.png"
        lines = [(f"{k}: {s}", file) for (k, s, _), file in zip(rows, names, strict=True)]
        contact_sheet(sheet, text, [found.split.image(i) for i, _ in best], lines)
        print(sheet)


def _printable(name: str) -> str:
    return name.encode(errors="replace").decode()


if __name__ == "__main__":
    main()
