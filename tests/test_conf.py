"""Every YAML composes, and binds to the signature of what it names."""

import inspect
import re
from collections import Counter

import pytest
from hydra.utils import get_class

from clipbench.core import paths
from clipbench.core.config.instantiate import MOVED
from clipbench.core.config.schema import KEYS
from tests.conftest import composed

GROUPS = sorted(p for p in paths.CONF.iterdir() if p.is_dir())
OPTIONS = [(g.name, p.stem) for g in GROUPS for p in sorted(g.glob("*.yaml"))]
EXPERIMENTS = sorted((paths.EXPERIMENTS / "experiment").glob("*.yaml"))
# A group's option may name what only its user knows.
NEEDS = {("model", "timm"): [], ("dataset", "imagefolder"): ["dataset.root=/photos"]}


def targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from targets(child)


def chosen(number):
    """The option of that number of each group that has as many: Hydra takes 0.1 s to compose."""
    options = {g.name: sorted(p.stem for p in g.glob("*.yaml")) for g in GROUPS}
    return {group: names[number] for group, names in options.items() if number < len(names)}


@pytest.mark.parametrize("number", range(max(Counter(group for group, _ in OPTIONS).values())))
def test_option_composes_and_binds(number):
    options = chosen(number)
    needs = [word for option in options.items() for word in NEEDS.get(option, [])]
    config = composed(*(f"{group}={option}" for group, option in options.items()), *needs)
    for group, option in options.items():
        found = list(targets(config.get(group, config)))
        assert found or group in ("recipe", "logger", "callbacks", "debug", "local")
        for node in found:
            signature = inspect.signature(get_class(MOVED.get(node["_target_"], node["_target_"])))
            given = {k: v for k, v in node.items() if k not in ("_target_", "recommended")}
            signature.bind_partial(**given)
            if group in ("model", "dataset", "strategy"):
                missing = [
                    name
                    for name, p in signature.parameters.items()
                    if p.kind is p.KEYWORD_ONLY and name not in given
                ]
                assert not missing, f"{group}={option} does not show {missing}"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_experiment_composes_and_says_what_it_claims(path):
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    for word in ("Claim", "Table", "Expected", "Cost", "Run"):
        assert any(re.match(rf"# {word}: \S", line) for line in head), f"{path.name}: no {word}"
    composed(f"experiment={path.stem}")


def test_a_yaml_is_short():
    for path in [*paths.CONF.rglob("*.yaml"), *paths.EXPERIMENTS.rglob("*.yaml")]:
        # The root shows the groups; shapes lists its classes.
        limit = 80 if path.stem in ("config", "shapes") else 35
        assert len(path.read_text().splitlines()) <= limit, path


def test_the_root_defaults_to_the_recipe():
    config = composed("recipe=wise_ft")
    assert config["lr"] == 3e-5
    assert config["batch_size"] == 512
    assert config["warmup_steps"] == 500
    assert composed("recipe=wise_ft", "lr=1e-4")["lr"] == 1e-4


def test_model_and_strategy_recommend_their_learning_rate():
    resnet = composed("model=resnet50", "dataset=flowers102")
    assert resnet["lr"] == 1e-3
    assert resnet["head_lr_factor"] == 10
    assert composed("model=clip_vitb32")["lr"] == 3e-5
    assert composed("model=clip_vitb32", "strategy=linear_probe")["lr"] == 1e-3


def test_the_options_that_people_type_are_frozen():
    """The public surface: a name that goes, or comes, is a decision."""
    models = {option for group, option in OPTIONS if group == "model"}
    assert models == {
        *("clip_vitb32", "clip_vitb16", "clip_vitl14", "clip_vitl14_336"),
        *("clip_vitb32_laion400m", "clip_vitb16_plus_240", "clip_rn50"),
        *("resnet50", "timm", "efficientnet_lite0", "clip_tiny", "resnet_tiny"),
    }
    datasets = {option for group, option in OPTIONS if group == "dataset"}
    assert datasets == {
        *("flowers102", "fgvc_aircraft", "fmow", "iwildcam", "imagenet", "cifar10", "eurosat"),
        *("dtd", "oxford_pets", "stanford_cars", "food101", "flickr8k", "flickr30k", "coco"),
        *("imagefolder", "captions", "shapes", "elpv"),
    }
    strategies = {option for group, option in OPTIONS if group == "strategy"}
    assert {
        *("finetune", "zero_shot", "linear_probe", "lp_ft", "image_only", "text_only", "flyp"),
        *("ce_text", "contrastive", "lit"),
    } <= strategies
    loggers = {option for group, option in OPTIONS if group == "logger"}
    assert loggers == {"tensorboard", "none", "wandb", "mlflow"}
    assert set(KEYS) >= {
        *("seed", "lr", "batch_size", "epochs", "freeze_depth", "warmup", "warmup_steps"),
        "text_freeze_depth",
        *("weight_decay", "label_smoothing", "head_lr_factor", "gate"),
        *("steps", "micro_batch", "layer_decay", "ema", "grad_checkpointing"),
        *("alphas", "merge", "merge_bn", "retention_every_epoch", "mix_fraction", "mix_weight"),
        *("monitor", "patience", "keep"),
    }


def test_an_experiment_may_set_the_roots_keys():
    config = composed("experiment=pretrain_clip_tiny")
    assert (config["epochs"], config["lr"]) == (3, 3e-4)
    assert composed("experiment=pretrain_clip_tiny", "epochs=5")["epochs"] == 5
