"""Which epochs' weights are kept besides the best and the last, and when training ends early."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.trainer.states import TrainerFn

from clipbench.core.errors import UserError
from clipbench.inference import averages, saved_model
from clipbench.metrics import intervals
from clipbench.models.base import Classifier
from clipbench.training import checkpoint_io
from clipbench.training.callbacks import Recorder


def _file(run: Path, epoch: int) -> Path:
    return run / "checkpoints" / f"epoch-{epoch:02d}.ckpt"


class Keep(Callback):
    """Keeps the weights of trained epochs as they were evaluated, an average if there is one.

    The recorder writes the last epoch's checkpoint before; ``which`` is ``all``, or how many of the
    best by its metric.
    """

    def __init__(self, recorder: Recorder, which: str | int) -> None:
        self.recorder, self.which = recorder, which

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights out of the last checkpoint, which the recorder has just written."""
        trains: bool = trainer.state.fn == TrainerFn.FITTING
        if getattr(pl_module, "split", None) != "val" or not trains or not trainer.is_global_zero:
            return
        rows, metric, folder = self.recorder.curve[1:], self.recorder.metric, self.recorder.folder
        best = sorted(
            (row for row in rows if row.get(metric) is not None),
            key=lambda row: -intervals.goodness(metric, row[metric]),
        )
        epochs = {r["epoch"] for r in (rows if self.which == "all" else best[: int(self.which)])}
        if (epoch := rows[-1]["epoch"]) in epochs:
            state = checkpoint_io.read(folder / "checkpoints" / "last.ckpt")["state_dict"]
            checkpoint_io.write(_file(folder, epoch), {"epoch": epoch, "state_dict": state})
        for row in rows:
            if row["epoch"] not in epochs:
                _file(folder, row["epoch"]).unlink(missing_ok=True)


def early_stopping(metric: str, patience: int) -> EarlyStopping:
    """Return early stopping after ``patience`` epochs without a better ``val/<name>``."""
    mode = "max" if intervals.goodness(metric, 1.0) > 0 else "min"
    return EarlyStopping(metric, patience=patience, mode=mode)


def stopped(trainer: Trainer) -> int | None:
    """Return the epoch, from 1, after which early stopping ended training; None if it did not."""
    ends = [c.stopped_epoch for c in trainer.early_stopping_callbacks if c.stopped_epoch]
    return min(ends) + 1 if ends else None


def at_epoch(run: str | Path, epoch: int) -> Classifier:
    """Return a run's classifier, in eval mode, after an epoch, from 1, that ``keep`` kept.

    Raises:
        UserError: if the folder has no completed run, or the epoch was not kept.
    """
    classifier, file = saved_model.classifier(run), _file(Path(run), epoch)
    if not file.is_file():
        raise UserError(f"{run} kept no epoch {epoch}; run it again with keep=all")
    averages.load_checkpoint(classifier, file)
    return classifier
