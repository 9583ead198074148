"""Lightning's Trainer as a config has it."""

from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy

from clipbench.core import distributed, environment
from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Config, Node
from clipbench.core.console import console
from clipbench.core.errors import UserError
from clipbench.training import lightning_internals
from clipbench.training.checkpoint_io import AtomicCheckpointIO


class Ranks(DDPStrategy):
    """Lightning's, but for evaluation, in which ranks may have more batches than others."""

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Bypass DDP's wrapper, which makes the ranks wait for one another at each batch."""
        assert self.lightning_module is not None
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **kwargs)


def trainer(
    config: Config, folder: Path, callbacks: list[Callback], *, staged: bool = False
) -> Trainer:
    """Return the Trainer of a run, with its callbacks, loggers and place among ranks.

    Where training is ``staged``, frozen in some epochs, several ranks look in each step which
    gradients will not come, instead of waiting for them.
    """
    callbacks = [
        *callbacks,
        *(build(node) for node in (config["callbacks"] or {}).values() if node),
    ]
    loggers = [_logger(n, node, folder) for n, node in (config["logger"] or {}).items() if node]
    # Bars are for a terminal; a log has the line of each epoch.
    bar = config["trainer"]["enable_progress_bar"] and console.is_terminal
    # The module ends a run of steps: with max_steps Lightning would take the end of an epoch, where
    # a run goes on, for its middle.
    epochs = config["epochs"] if config["steps"] is None else -1
    several = distributed.here.world > 1
    # Else Lightning would look for itself, and take a SLURM job's processes for ranks.
    place: Any = TorchElasticEnvironment() if several else LightningEnvironment()
    ranks = {"strategy": Ranks(find_unused_parameters=staged)} if several else {}
    built: Trainer = build(
        {**config["trainer"], "enable_progress_bar": bar, "max_epochs": epochs},
        callbacks=[*callbacks, *([RichProgressBar(leave=False)] if bar else [])],
        logger=loggers,
        plugins=[AtomicCheckpointIO(), place],
        default_root_dir=str(folder),
        **ranks,
    )
    lightning_internals.leave_signals_alone(built)
    _check_devices(built, environment.resolved(config["trainer"], distributed.here.world))
    return built


def _check_devices(built: Trainer, resolved: Node) -> None:
    """Stop a run that would not be on what its key says."""
    device = built.strategy.root_device.type
    actual = {"accelerator": device, "devices": built.num_devices, "precision": built.precision}
    if actual != dict(resolved):
        raise RuntimeError(f"Lightning chose {actual} where the key of the run has {resolved}")


def _logger(name: str, node: Node, folder: Path) -> Logger:
    try:
        built: Logger = build(node, save_dir=str(folder))
    except InstantiationException as failure:
        cause: BaseException | None = failure
        while cause is not None and not isinstance(cause, ImportError):
            cause = cause.__cause__
        if cause is None:
            raise
        fix = f"pip install 'clipbench[{name}]', or leave logger={name} out"
        raise UserError(f"{name} is not installed here; {fix}") from None
    return built
