"""The evaluation before training, and its check against what is published."""

from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.training import checkpoint_io, sanity_checks
from clipbench.training.build import Components
from clipbench.training.module import RetrievalModule
from clipbench.training.resume import ResumePoint


def validate(parts: Components) -> None:
    """Evaluate val, outside of training."""
    parts.trainer.validate(parts.module, parts.loaders.eval_dataloader("val"), verbose=False)


def epoch_zero(parts: Components, resume_from: ResumePoint | None) -> None:
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
        validate(parts)
    elif isinstance(parts.module, RetrievalModule):  # whose outputs are shown in the end
        recorder.looks_on = True
        validate(parts)
        recorder.looks_on = False
    if parts.spec.strategy.fits_head == "start" or not classifier.meaningful:
        return
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
