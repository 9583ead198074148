"""The training of a run: epoch 0, the epochs or the weights of a run that trained the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clipbench.core.errors import UserError
from clipbench.models.weight_averaging import State
from clipbench.results.record import RunRecord
from clipbench.training import checkpoint_io, lightning_internals, reused_weights
from clipbench.training.build import Components
from clipbench.training.checkpoints import stopped
from clipbench.training.epoch_zero import epoch_zero, validate
from clipbench.training.evaluator import copied
from clipbench.training.module import RetrievalModule
from clipbench.training.resume import ResumePoint
from clipbench.training.robustness.replay import Zipped


@dataclass(frozen=True)
class Fitted:
    """What is left of a training, besides the chosen weights, which the module holds.

    Attributes:
        start: weights before training, if averages with them are asked for.
        last: weights after the last epoch, likewise.
        before: outputs of val before training, where there are captions.
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
    epoch_zero(parts, resume_from)
    before = dict(module.outputs) if isinstance(module, RetrievalModule) else None
    if not parts.spec.config["retention_every_epoch"]:
        module.watch = None
    source = None if resume_from else reused_weights.source(parts.spec)
    if source is not None:
        last = reused_weights.take(parts, record, source)
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
    """Return the weights before training, if averages with them are asked for and make sense."""
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


def _train(parts: Components, record: RunRecord, resume_from: ResumePoint | None) -> None:
    module, strategy = parts.module, parts.spec.strategy
    if strategy.fits_head == "run":
        strategy.fit_head(module.classifier, parts.features.tensors, module.weights)
        parts.recorder.epoch = 1
        validate(parts)
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
        # Before the loader is asked: Lightning tells the epoch after (its issue 21938).
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
