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

    Args:
        recorder: writes the whole of each epoch before this does; its metric says which is best.
        which: ``all``, or how many of the best.
    """

    def __init__(self, recorder: Recorder, which: str | int) -> None:
        self.recorder, self.which = recorder, which

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights out of the last checkpoint, which the recorder has just written."""
        trains: bool = trainer.state.fn == TrainerFn.FITTING
        if getattr(pl_module, "split", None) != "val" or not trains or not trainer.is_global_zero:
            return
        rows, folder = self.recorder.curve[1:], self.recorder.folder
        best = sorted(
            (row for row in rows if row.get(self.recorder.metric) is not None),
            key=lambda row: -intervals.goodness(self.recorder.metric, row[self.recorder.metric]),
        )
        kept = {row["epoch"] for row in (rows if self.which == "all" else best[: int(self.which)])}
        if (epoch := rows[-1]["epoch"]) in kept:
            last = folder / "checkpoints" / "last.ckpt"
            whole = checkpoint_io.read(last)
            weights_alone = {"epoch": epoch, "state_dict": whole["state_dict"]}
            checkpoint_io.write(_file(folder, epoch), weights_alone)
        for row in rows:
            if row["epoch"] not in kept:
                _file(folder, row["epoch"]).unlink(missing_ok=True)


def early_stopping(metric: str, patience: int) -> EarlyStopping:
    """Return Lightning's early stopping on a metric of val.

    Args:
        metric: ``val/<name>``.
        patience: epochs in a row that may pass without a better value.
    """
    mode = "max" if intervals.goodness(metric, 1.0) > 0 else "min"
    return EarlyStopping(metric, patience=patience, mode=mode)


def stopped(trainer: Trainer) -> int | None:
    """Return the epoch, from 1, after which early stopping ended training; None if it did not."""
    ends = [c.stopped_epoch for c in trainer.early_stopping_callbacks if c.stopped_epoch]
    return min(ends) + 1 if ends else None


def at_epoch(run: str | Path, epoch: int) -> Classifier:
    """Return a run's classifier, in eval mode, as it was after an epoch that ``keep`` kept.

    Args:
        run: a run's folder.
        epoch: from 1.

    Raises:
        UserError: if the folder has no completed run, or the epoch was not kept.
    """
    classifier, file = saved_model.classifier(run), _file(Path(run), epoch)
    if not file.is_file():
        raise UserError(f"{run} kept no epoch {epoch}; run it anew with keep=all")
    averages.load_checkpoint(classifier, file)
    return classifier
