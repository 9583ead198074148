"""The weights of a completed run that trained the same, in place of training them again."""

from pathlib import Path

from clipbench.core import distributed
from clipbench.core.console import console
from clipbench.inference import saved_model
from clipbench.models.weight_averaging import State
from clipbench.results import reuse, store
from clipbench.results.record import RunRecord
from clipbench.training import checkpoint_io
from clipbench.training.build import Components
from clipbench.training.evaluator import copied
from clipbench.training.spec import RunSpec


def source(spec: RunSpec) -> Path | None:
    """Return the folder of a run to take the weights from, see :func:`reuse.twin`."""
    folder = None
    if distributed.here.first and spec.strategy.trains and spec.training_key != spec.key:
        folder = reuse.twin(spec.folder, spec.training_key, spec.config)
    return distributed.broadcast(folder)


def take(parts: Components, record: RunRecord, folder: Path) -> State | None:
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
