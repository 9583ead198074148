"""Keys, records and help are those that were pinned; ``python -m tests.pins`` pins them anew."""

import json
from pathlib import Path

from tests.conftest import clipbench, composed
from tests.datamodules.folders import class_folders

HERE = Path(__file__).parent
# Command lines whose keys are pinned; {root} is a folder of images that the test draws.
LINES = (
    "model=clip_tiny",
    "model=resnet_tiny seed=1",
    "model=clip_tiny lr=1e-5 batch_size=32 epochs=3",
    "model=clip_tiny steps=40 warmup_steps=5",
    "model=clip_tiny freeze_depth=3 layer_decay=0.65 ema=auto",
    "model=clip_tiny strategy=zero_shot",
    "model=clip_tiny strategy=linear_probe",
    "model=clip_tiny strategy=lp_ft",
    "model=clip_tiny strategy=flyp",
    "model=clip_tiny strategy=contrastive text_freeze_depth=1",
    "model=clip_tiny alphas=10",
    "model=clip_tiny alphas=[0.5] merge=fisher",
    "model=clip_tiny retention=shapes retention.shots=2",
    "model=clip_tiny mix=shapes mix.shots=2 mix_fraction=0.5",
    "model=clip_tiny recipe=wise_ft allow_unfinished_warmup=true",
    "model=clip_tiny recipe=auto",
    "model=clip_tiny augment=ft_clip label_smoothing=0.1",
    "model=clip_tiny prompts=simple monitor=loss patience=2",
    "model=clip_tiny dataset=imagefolder dataset.root={root}/folders",
    "model=timm model.arch=test_resnet model.pretrained=null model.image_size=32 "
    "dataset=imagefolder dataset.root={root}/folders dataset.balance=weights",
)
SHAPES = ("dataset.counts={train: 4, val: 2, test: 2, test_ood: 2}", "trainer=cpu")
# What differs from run to run or from machine to machine: another Pillow may draw otherwise, and
# then what the images hold is another content, in the key too.
VOLATILE = {
    *("versions", "environment", "git", "cost", "sha256", "curve", "final", "temperature"),
    *("key", "training", "setting", "warnings"),
}


def keys(root: Path) -> dict[str, str]:
    """The key of each command line."""
    from clipbench.core.jobs import Job
    from clipbench.results import identity as identity_module
    from clipbench.training.spec import resolve

    class_folders(root / "folders", ("ant", "bee"), 12)
    found = {}
    for line in LINES:
        words = line.format(root=root).split()
        typed = dict(word.split("=", 1) for word in words)
        drawn = "dataset" not in typed
        config = composed(*words, *(SHAPES if drawn else SHAPES[1:]))
        choices = {"dataset": "shapes", "strategy": "finetune", **typed}
        identity = resolve(Job(config, choices, words)).identity
        found[line] = identity_module.key(_without_content(identity))
    return found


def _without_content(node):
    """An identity but for what the images hold."""
    if not isinstance(node, dict):
        return node
    return {name: _without_content(v) for name, v in node.items() if name != "content"}


def shape(record: dict) -> dict:
    """A record with the kind of what differs between runs in place of its value."""
    data = {name: {**split, "content": "str"} for name, split in record["data"].items()}
    entries = {**record, "data": data}
    return {name: _kind(v) if name in VOLATILE else v for name, v in entries.items()}


def _kind(value):
    if isinstance(value, dict):
        return {name: _kind(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_kind(v) for v in value]
    return type(value).__name__


def pinned(name: str) -> dict:
    return json.loads((HERE / name).read_text())


def test_keys_of_twenty_command_lines(tmp_path, outputs):
    assert len(LINES) == 20
    assert keys(tmp_path) == pinned("keys.json")


def test_records_of_a_clip_and_of_a_resnet(runs):
    for model, (_, record) in runs.items():
        mine, before = shape(record), pinned(f"record_{model}.json")
        assert list(mine) == list(before)
        assert mine == before


def test_help():
    done = clipbench("--help")
    assert done.stdout == (HERE / "help.txt").read_text()
