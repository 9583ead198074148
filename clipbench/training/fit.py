"""The training of a run: epoch 0, the epochs or the weights of a run that trained the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clipbench.core import distributed
from clipbench.core.console import console
from clipbench.core.errors import UserError
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.inference import saved_model
from clipbench.models.weight_averaging import State
from clipbench.results import reuse, store
from clipbench.results.record import RunRecord
from clipbench.training import checkpoint_io, lightning_internals, sanity_checks
from clipbench.training.build import Components
from clipbench.training.checkpoints import stopped
from clipbench.training.evaluator import copied
from clipbench.training.module import RetrievalModule
from clipbench.training.resume import ResumePoint
from clipbench.training.robustness.replay import Zipped


@dataclass(frozen=True)
class Fitted:
    """What training leaves besides the chosen weights, which the module holds.

    The weights at the start and after the last epoch, if averages of them are requested, and the
    outputs of val before training, where there are captions.
    """

    start: State | None
    last: State | None
    before: Mapping[str, Tensor] | None


def fit(parts: Components, record: RunRecord, resume_from: ResumePoint | None) -> Fitted:
    """Evaluate the start, train, and leave the weights of the chosen epoch in the module."""
    module, strategy = parts.module, parts.spec.strategy
    if strategy.fits_head == "start":
        strategy.fit_head(module.classifier, parts.features.tensors, module.weights)
    start = _start(parts)
    module.watch = parts.evaluator.retention
    _epoch_zero(parts, resume_from)
    before = dict(module.outputs) if isinstance(module, RetrievalModule) else None
    if not parts.spec.config["retention_every_epoch"]:
        module.watch = None
    source = None if resume_from else _twin(parts)
    if source is not None:
        last = _reuse(parts, record, source)
    else:
        _train(parts, record, resume_from)
        last = copied(module.classifier) if start else None
        module.load_state_dict(_best_weights(parts, record))
        if parts.recorder.best_outputs:
            parts.evaluator.outputs["val"] = parts.recorder.best_outputs
    # It would take each further evaluation of val for an epoch.
    lightning_internals.callbacks(parts.trainer).remove(parts.recorder)
    return Fitted(start, last, before)


def _start(parts: Components) -> State | None:
    """Return the weights before training, if averages with them are requested and make sense."""
    merge, strategy, classifier = parts.spec.merge, parts.spec.strategy, parts.module.classifier
    if merge is None:
        return None
    if not classifier.meaningful or not (strategy.trains or strategy.fits_head):
        reason = "nothing is trained" if classifier.meaningful else "the head is random"
        parts.folder.warn(f"no alphas: there is no start to average with where {reason}")
        return None
    if merge.kind == "paint" and any(p.requires_grad for p in classifier.head.parameters()):
        raise UserError("merge=paint is for a head that stays; add strategy.head_trains=false")
    if merge.statistics == "reestimate" and strategy.frozen_statistics:
        parts.folder.warn(
            "merge_bn=reestimate replaces the pretrained statistics, with which this run was "
            "tuned; merge_bn=average keeps them"
        )
    return copied(classifier)


def _validate(parts: Components) -> None:
    """Evaluate val, outside of training."""
    parts.trainer.validate(parts.module, parts.loaders.eval_dataloader("val"), verbose=False)


def _epoch_zero(parts: Components, resume_from: ResumePoint | None) -> None:
    """Evaluate val before training, or restore the curve of a run that goes on.

    Raises:
        UserError: if the numbers are far below the published ones and ``gate`` is on.
    """
    recorder, classifier = parts.recorder, parts.module.classifier
    dataset = parts.spec.data.dataset
    if resume_from is not None:
        state = checkpoint_io.read(resume_from.path(parts.folder.path))
        recorder.load_state_dict(state["callbacks"][recorder.state_key])
        recorder.report()
    # Two towers can be evaluated without a head, though a new one answers by chance.
    if not classifier.meaningful and dataset.classes:
        nulls = {f"val/{name}": None for name in ("loss", *dataset.measured)}
        if resume_from is None:
            recorder.add(0, nulls, parts.trainer, parts.module)
        return
    if resume_from is None:
        _validate(parts)
    elif isinstance(parts.module, RetrievalModule):  # whose outputs are shown in the end
        recorder.looks_on = True
        _validate(parts)
        recorder.looks_on = False
    if classifier.meaningful and parts.spec.strategy.fits_head != "start":
        _compare_with_published(parts)


def _compare_with_published(parts: Components) -> None:
    data, config, row = parts.spec.data.dataset, parts.spec.config, parts.recorder.curve[0]
    if isinstance(data, CaptionDataModule):
        what, metric, published = "image recall@5", "image_recall@5", "image_retrieval_recall@5"
        chance = 5 / len(data.splits["val"])
        cause = "captions and images disagree; check which caption is whose"
    else:
        what, metric, published, chance = "accuracy", "acc", "acc1", 1 / len(data.classes)
        cause = "class names and labels disagree; check the order of dataset.classes"
    arch, loaded = config["model"].get("arch", ""), parts.module.classifier.tower.loaded
    message = sanity_checks.zero_shot(
        what,
        row[f"val/{metric}"],
        chance=chance,
        reference=sanity_checks.published_zero_shot(arch, loaded, data.published_name, published),
        cause=cause,
        gate=config["gate"],
    )
    if message:
        parts.folder.warn(message)


def _twin(parts: Components) -> Path | None:
    """Return the folder of a run to take the weights from, see :func:`reuse.twin`."""
    folder, spec = None, parts.spec
    if distributed.here.first and spec.strategy.trains and spec.training_key != spec.key:
        folder = reuse.twin(spec.folder, spec.training_key, spec.config)
    return distributed.broadcast(folder)


def _reuse(parts: Components, record: RunRecord, folder: Path) -> State | None:
    """Take the weights, the curve and the cost of another run.

    Returns:
        Its weights after the last epoch, if they were ending.
    """
    module, last, checkpoint = parts.module, None, folder / "checkpoints" / "last.ckpt"
    if checkpoint.is_file():
        ending = checkpoint_io.read(checkpoint)
        module.load_state_dict(ending["state_dict"])
        last = copied(module.classifier)
    module.classifier.load_state_dict(saved_model.classifier(folder).state_dict())
    theirs = store.read(folder)
    assert theirs is not None
    chosen = theirs.selection.epoch
    parts.recorder.take(theirs.curve[1:], chosen, parts.trainer)
    # Nothing has been evaluated yet where the head was random.
    parts.trainer.strategy.connect(module)
    best = parts.folder.path / "checkpoints" / "best.ckpt"
    parts.trainer.save_checkpoint(best, weights_only=True)
    record.weights_from = {"key": theirs.key, "folder": folder.name}
    record.cost = theirs.cost
    console.print(f"weights of {folder.name}, which trained the same", highlight=False)
    if note := reuse.difference(theirs):
        parts.folder.warn(f"the weights of {folder.name} were {note}")
    return last


def _train(parts: Components, record: RunRecord, resume_from: ResumePoint | None) -> None:
    module, strategy = parts.module, parts.spec.strategy
    if strategy.fits_head == "run":
        strategy.fit_head(module.classifier, parts.features.tensors, module.weights)
        parts.recorder.epoch = 1
        _validate(parts)
    elif strategy.trains:
        _train_epochs(parts, resume_from)
        _check_steps(parts, record)


def _train_epochs(parts: Components, resume_from: ResumePoint | None) -> None:
    train: Any = parts.loaders.train_dataloader()
    if (mixed := parts.spec.data.mixed) is not None:
        parts.module.mixed = mixed
        train = Zipped(train, mixed.data.train_dataloader())
    checkpoint = None
    if resume_from is not None:
        # Before Lightning asks the loader: it tells the epoch after (its issue 21938).
        train.sampler.begin(resume_from.epoch, resume_from.batch * parts.spec.batch.rows[0])
        checkpoint = resume_from.path(parts.folder.path)
    val = parts.loaders.eval_dataloader("val")
    parts.trainer.fit(parts.module, train, val, ckpt_path=checkpoint)


def _check_steps(parts: Components, record: RunRecord) -> None:
    """Record the steps that were not taken as planned.

    Raises:
        UserError: if early stopping does not explain them.
    """
    taken, planned = parts.trainer.global_step, parts.spec.schedule.total
    if parts.module.skipped:
        _record_skipped(parts, record, taken)
    if taken == planned:
        return
    if (epoch := stopped(parts.trainer)) is None:
        raise UserError(f"{taken} steps were taken and {planned} planned; set epochs alone")
    record.steps.stopped, record.steps.taken = epoch, taken
    parts.folder.warn(
        f"stopped early after epoch {epoch}, {taken} of {planned} steps: the learning rate was "
        f"still at {parts.spec.schedule.factor(taken):.0%} of its peak; epochs={epoch} would have "
        "let it fall to its end"
    )


def _record_skipped(parts: Components, record: RunRecord, taken: int) -> None:
    """Record the steps that a gradient scaler skipped; a few at the start are normal."""
    skipped = record.steps.skipped = parts.module.skipped
    if skipped > 0.05 * taken:
        parts.folder.warn(
            f"{skipped} of {taken} steps were skipped: float16 gradients overflowed at the "
            "current scale, which was lowered; use trainer.precision=bf16-mixed if there is"
        )


def _best_weights(parts: Components, record: RunRecord) -> State:
    """Return the state of the module at the chosen epoch."""
    best = checkpoint_io.read(parts.folder.path / "checkpoints" / "best.ckpt")
    epoch = best["epoch"] + 1 if best["global_step"] else 0
    if parts.trainer.global_step and epoch != record.selection.epoch:
        # Of an epoch that this run came to before it was interrupted, and to another end.
        raise UserError("the run did not go on as it had before; use ckpt.resume=null")
    state: State = best["state_dict"]
    return state
