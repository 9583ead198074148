"""What a run writes while it trains: its curve, its best and its last checkpoint."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn

from clipbench.core import distributed
from clipbench.core.console import console
from clipbench.core.errors import UserError
from clipbench.core.files import write_text
from clipbench.metrics import intervals, registry
from clipbench.results.record import Row
from clipbench.training import lightning_internals
from clipbench.training.checkpoint_io import Content
from clipbench.training.module import FineTuningModule


class EMA(WeightAveraging):
    """The exponential moving average of the weights, and of BatchNorm's statistics.

    With w_t the weights after step t: e_1 = w_1, e_t = decay * e_(t-1) + (1 - decay) * w_t. What
    is evaluated, chosen and saved is e, while training goes on with w.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Any, current: Any, count: Any) -> None:
            for old, new in zip(averaged, current, strict=True):
                if old.is_floating_point():
                    # Unlike a sum of products, this leaves what is frozen as it is, to the bit; a
                    # text tower's mask has infinities, which have no difference.
                    old.copy_(torch.where(old == new, old, old.lerp(new, 1 - decay)))
                else:
                    old.copy_(new)

        super().__init__(multi_avg_fn=average)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: Lightning skips this where a run goes on after its last epoch."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model, and swap no more.

        Lightning would put the last epoch's average in place of the chosen one, which is loaded
        for the test splits.
        """
        super().on_train_end(trainer, pl_module)
        lightning_internals.drop_average(self)


class Throughput:
    """A clock of training epochs, without evaluation, and a count of their images."""

    def __init__(self) -> None:
        self.train_seconds, self.images = 0.0, 0
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock, unless it runs."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        self.train_seconds, self._started = self.elapsed, None

    @property
    def elapsed(self) -> float:
        """Seconds of training up to now."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self.train_seconds + running

    @property
    def images_per_second(self) -> float | None:
        """The mean over the run; None if nothing was trained."""
        return self.images / self.train_seconds if self.images else None


class Recorder(Callback):
    """Keeps the curve: a row an epoch, row 0 before any step.

    ``report_row`` is called after each row with the curve and the best row: best on val by the
    metric, earliest on ties.

    Attributes:
        curve: rows ``{"epoch", "val/loss", "val/acc", ...}``.
        best: the chosen row, or None before any row has a metric.
        best_outputs: the module's at the chosen epoch; none if that was before an interruption.
        epoch: of the row that an evaluation outside of training adds.
        looks_on: whether it adds none.
    """

    def __init__(
        self, folder: Path, metric: str, report_row: Callable[[list[Row], Row | None], None]
    ) -> None:
        self.folder, self.metric, self._report_row = folder, metric, report_row
        self.curve: list[Row] = []
        self.best: Row | None = None
        self.best_outputs: dict[str, torch.Tensor] = {}
        self.throughput, self.epoch = Throughput(), 0
        self.looks_on = False
        self._losses: list[torch.Tensor] = []
        self._lost_before: torch.Tensor | None = None  # of an epoch that was interrupted

    def state_dict(self) -> Content:
        """Return what a resumed run needs; of the losses, every rank's."""
        return {
            "curve": json.dumps(self.curve),  # each number to the bit, whatever its type
            "best": self.best and self.best["epoch"],
            "train_seconds": self.throughput.elapsed,
            "pictures": self.throughput.images,
            "losses": distributed.gathered(self._lost()),
        }

    def load_state_dict(self, state_dict: Content) -> None:
        """Go on from a saved state."""
        self.curve[:] = json.loads(state_dict["curve"])
        chosen = [row for row in self.curve if row["epoch"] == state_dict["best"]]
        self.best, self.best_outputs = chosen[0] if chosen else None, {}
        self.throughput.train_seconds = state_dict["train_seconds"]
        self.throughput.images = state_dict["pictures"]
        self._lost_before = state_dict["losses"][distributed.here.rank]

    def _lost(self) -> torch.Tensor | None:
        """Return the losses of this epoch's batches so far, on the CPU; None before the first."""
        parts = [] if self._lost_before is None else [self._lost_before]
        if self._losses:
            parts.append(torch.stack(self._losses).cpu())
        return torch.cat(parts) if parts else None

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the clock of training, at the first batch of an epoch."""
        self.throughput.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss of each batch; the row of the epoch has their mean."""
        self._losses.append(outputs["loss"].detach())
        step = trainer.global_step
        if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            # Here, and not as Lightning would, after a checkpoint of this step is written.
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_step": float(self._losses[-1])}, step - 1)
        rows = len(batch["label"]) + len(batch.get("mixed", {}).get("label", ()))
        self.throughput.images += rows * distributed.here.world

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop the clock of training."""
        self.throughput.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of an epoch that has just been evaluated on val."""
        assert isinstance(pl_module, FineTuningModule)
        watched = trainer.state.fn in (TrainerFn.FITTING, TrainerFn.VALIDATING)
        if self.looks_on or pl_module.split != "val" or not watched:
            return
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.add(self.epoch, pl_module.values, trainer, pl_module)
            return
        losses = self._lost()
        assert losses is not None
        self._losses, self._lost_before = [], None
        loss = distributed.mean(float(losses.mean()))
        values = {"train/loss": loss, **pl_module.values}
        self.add(trainer.current_epoch + 1, values, trainer, pl_module)

    def report(self) -> None:
        """Pass the curve and the best row on, as to the run's record."""
        self._report_row(self.curve, self.best)

    def take(self, rows: Sequence[Row], chosen: int | None, trainer: Trainer) -> None:
        """Take the rows after epoch 0, and the chosen epoch, of a run that trained the same."""
        for row in rows:
            self.curve.append(row)
            self._log(row, trainer)
        self.best = next(row for row in self.curve if row["epoch"] == chosen)
        self.best_outputs = {}
        self._write()
        self.report()

    def _log(self, row: Row, trainer: Trainer) -> Row:
        values = {k: v for k, v in row.items() if v is not None and k != "epoch"}
        for logger in trainer.loggers:
            # The epoch is the x-axis, so that runs of different batch size lie over each other.
            logger.log_metrics(values, row["epoch"])
        return values

    def _write(self) -> None:
        if distributed.here.first:
            write_text(self.folder / "curve.csv", pd.DataFrame(self.curve).to_csv(index=False))

    def _better(self, score: float) -> bool:
        assert self.best is not None
        before = intervals.goodness(self.metric, self.best[self.metric])
        return intervals.goodness(self.metric, score) > before

    def add(self, epoch: int, values: Row, trainer: Trainer, module: FineTuningModule) -> None:
        """Append a row; its values are None where the model has no meaningful head yet."""
        # The ranks must agree on the best epoch, though their BatchNorms may differ.
        row: Row = distributed.broadcast({"epoch": epoch, **values})
        self.curve.append(row)
        score = row.get(self.metric)
        if score is None and row.get("val/loss") is not None:
            raise UserError(f"val has no {self.metric}; choose epochs by another, as monitor=loss")
        if score is not None and (self.best is None or self._better(score)):
            self.best, self.best_outputs = row, module.outputs
            best = self.folder / "checkpoints" / "best.ckpt"
            trainer.save_checkpoint(best, weights_only=_alone(trainer))
        if epoch and trainer.state.fn == TrainerFn.FITTING:
            last = self.folder / "checkpoints" / "last.ckpt"
            trainer.save_checkpoint(last, weights_only=_alone(trainer))
        self._write()
        logged = self._log(row, trainer)
        printed = {f"val/{metric.printed}" for metric in registry.METRICS.values()}
        printed |= {"train/loss", self.metric, "retention/acc"}
        line = "  ".join(f"{k} {v:.4f}" for k, v in logged.items() if k in printed)
        self.report()
        line = line or "no meaningful head before training"
        console.print(f"epoch {epoch:2d}  {line}", highlight=False)


def _alone(trainer: Trainer) -> bool:
    """Return whether a checkpoint can have the evaluated weights, and nothing else.

    Lightning asks callbacks what to save for whole checkpoints only, and an average of the weights
    is a callback's.
    """
    return not any(isinstance(c, EMA) for c in lightning_internals.callbacks(trainer))
