"""Lightning's private members that a run depends on: each exists, and does what is assumed."""

import signal

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.demos.boring_classes import BoringModel
from torch.optim.swa_utils import AveragedModel

from clipbench.training import lightning_internals


class Watch(Callback):
    """Keeps what each training batch of a fit sees."""

    def __init__(self):
        self.handlers, self.batches = [], []

    def on_train_batch_end(self, trainer, *args):
        self.handlers.append(signal.getsignal(signal.SIGTERM))
        self.batches.append(lightning_internals.batches_seen(trainer))


@pytest.fixture
def trainer(tmp_path):
    return Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )


def test_signals_are_lightnings_unless_they_are_left_alone(trainer):
    before, watch = signal.getsignal(signal.SIGTERM), Watch()
    assert callable(trainer._signal_connector.register_signal_handlers)
    lightning_internals.callbacks(trainer).append(watch)
    trainer.fit(BoringModel())
    assert before not in watch.handlers
    watch.handlers.clear()
    lightning_internals.leave_signals_alone(trainer)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(BoringModel())
    assert set(watch.handlers) == {before}


def test_batches_are_counted_within_their_epoch(trainer):
    watch = Watch()
    lightning_internals.callbacks(trainer).append(watch)
    trainer.fit(BoringModel())
    assert watch.batches == [1, 2, 3, 1, 2, 3]


def test_callbacks_added_and_removed_in_place_are_called_and_not_called(trainer):
    watch = Watch()
    listed = lightning_internals.callbacks(trainer)
    listed.append(watch)
    listed.remove(watch)
    trainer.fit(BoringModel())
    assert not watch.batches


def test_an_average_swaps_with_the_weights_until_it_is_dropped(trainer):
    module, average = BoringModel(), WeightAveraging()
    lightning_internals.callbacks(trainer).append(average)
    trainer.fit(module)
    assert isinstance(average._average_model, AveragedModel)
    averaged = module.layer.weight.detach().clone()  # put there at the end of training
    changed = averaged + 1
    with torch.no_grad():
        module.layer.weight.copy_(changed)
    average.on_validation_epoch_start(trainer, module)
    assert torch.equal(module.layer.weight, averaged)
    average.on_validation_epoch_end(trainer, module)
    assert torch.equal(module.layer.weight, changed)
    lightning_internals.drop_average(average)
    average.on_validation_epoch_start(trainer, module)
    assert torch.equal(module.layer.weight, changed)
