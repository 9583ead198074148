"""The OpenCLIP guide's checklist, read off a config before anything starts."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipbench.diagnosis import guide

Check = tuple[bool, str, str]  # whether it passes, what was looked at, the override to try


def checks(config: Mapping[str, Any]) -> Iterator[Check]:
    """Each point of the checklist, in its order; no data and no weights are looked at.

    Args:
        config: composed, not yet filled in: null lr, epochs and so on are chosen by rule later.
    """
    model, strategy, lr = config["model"], config["strategy"], config["lr"]
    weights = model.get("pretrained")
    yield weights is not None, f"model.pretrained={weights}", "model.pretrained=TAG"
    name = guide.row(strategy)
    low, high = guide.GUIDE[name].lr
    usual = guide.own_lr(model, strategy)
    clip = str(model["_target_"]).rpartition(".")[2] == "CLIP"
    right = lr is None or lr == usual or not clip or low <= lr <= high
    about = f"lr={lr} ({low:g} to {high:g} in the guide for {name})" if clip else f"lr={lr}"
    yield right, about, f"lr={guide.GUIDE[name].middle:.2g}"
    epochs = config["epochs"]
    fits = epochs is None or config["steps"] is not None or 5 <= epochs <= 20
    yield fits, f"epochs={epochs} (5 to 20)", "epochs=10"
    literal, share = config["warmup_steps"], config["warmup"]
    told = f"warmup_steps={literal}" if literal is not None else f"warmup={share}"
    short = literal is None and (share is None or share <= 0.3)
    yield short, f"{told} (a share of the run, at most 0.3)", "warmup_steps=null warmup=0.1"
    kept = config["retention"] is not None
    yield kept or not clip, f"retention={'set' if kept else None}", "retention=cifar10"
    full = name == "full fine-tuning"
    yield not full, name, "freeze_depth=6, before all of it"
    seen = config["trainer"].get("limit_val_batches") != 0
    by = config["monitor"] or "the dataset's own metric"
    yield seen, f"epochs are chosen on val, by {by}", "~trainer.limit_val_batches"
    averaged = config["alphas"] is not None or not clip
    yield averaged, f"alphas={config['alphas']} (WiSE-FT)", "alphas=10"
    saves = bool(config["callbacks"])
    yield saves, f"callbacks={'set' if saves else None} (checkpoints)", "callbacks=default"
