"""The private members of Lightning that a run depends on; a test fails when they change."""

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import WeightAveraging


def leave_signals_alone(trainer: Trainer) -> None:
    """Keep Lightning from handling SIGTERM, which it would do later, as if nothing had been."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def drop_average(callback: WeightAveraging) -> None:
    """Have an average of the weights swap no more."""
    callback._average_model = None


def batches_seen(trainer: Trainer) -> int:
    """Return how many batches of this epoch the loader has given."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def callbacks(trainer: Trainer) -> list[Callback]:
    """Return the list of a Trainer's callbacks, to be changed in place."""
    listed: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return listed
