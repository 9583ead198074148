"""The fine-tuned model in files for other programs.

Run: python -m clipbench.export run=DIR format=open_clip|safetensors|onnx [out=FOLDER]

open_clip    a folder for open_clip.create_model_and_transforms("local-dir:FOLDER"); the weights
             alone load with create_model(ARCH, pretrained=FOLDER/open_clip_model.safetensors)
safetensors  a CLIP's towers apart, under open_clip's names; a ResNet whole, under its library's
onnx         image -> logits, features; tokens -> features; any batch, opset 20, compared with
             PyTorch by onnxruntime (pip install 'clipbench[onnx]')

towers       both (default), image or text
weights      model (default), or merged: the best average of start and end of a run with alphas
alpha        0.3: the average of start (0) and end (1) that a run with alphas=[0.3] evaluates;
             unless it was the chosen one, computing it needs the run's dataset
out          default: exports/ under the outputs root

The classifier is in head.safetensors: it reads normalised features of a CLIP, and its metadata
has the class of each row.
"""

from pathlib import Path

from clipbench.core import cli, paths
from clipbench.core.errors import UserError
from clipbench.results import store

KEYS = ("run", "format", "towers", "weights", "alpha", "out")


def main() -> None:
    """Export, and print the files."""
    cli.opened(__doc__ or "", export)


def export(words: list[str]) -> int:
    """Run the command."""
    arguments = cli.given(words, KEYS)
    run, record = store.completed(arguments)
    if "format" not in arguments:
        raise UserError("format= is missing. Choose open_clip, safetensors or onnx.")
    kind = cli.choice(arguments, "format", ("open_clip", "safetensors", "onnx"))
    towers = cli.choice(arguments, "towers", ("both", "image", "text"))
    stem = cli.choice(arguments, "weights", ("model", "merged"))
    alpha = _alpha(arguments)

    from clipbench.inference import averages, export_formats, saved_model  # torch

    classes, about = saved_model.classes(run, stem), {"clipbench": record.key}
    if alpha is None:
        classifier = saved_model.classifier(run, stem)
    else:
        classifier, about["alpha"] = averages.between(run, alpha), f"{alpha:g}"
    name = "-".join([run.resolve().name, *([stem] if stem != "model" else [])])
    name += "" if alpha is None else f"-alpha={alpha:g}"
    folder = (
        Path(arguments["out"]) if "out" in arguments else paths.outputs() / "exports" / name / kind
    )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is a file. Name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    tuned = export_formats.Tuned(classifier, classes, about, towers)
    for file in export_formats.FORMATS[kind](tuned, folder):
        print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


def _alpha(arguments: cli.Given) -> float | None:
    if "alpha" not in arguments:
        return None
    try:
        alpha = float(arguments["alpha"])
    except ValueError:
        alpha = -1
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={arguments['alpha']} is not a number from 0 (start) to 1 (end).")
    if "weights" in arguments:
        raise UserError("weights= and alpha= exclude each other. Leave one out.")
    return alpha


if __name__ == "__main__":
    main()
