"""When an earlier run stands for this one."""

from pathlib import Path

from clipbench.core import environment
from clipbench.core.config.option_files import Node
from clipbench.results import store
from clipbench.results.record import RunRecord

RETRY = (None, "failed", "versions")


def again(folder: Path, record: RunRecord, config: Node, asked: float) -> bool:
    """Return whether a completed run is to be run again.

    Args:
        folder: the run's.
        record: what it left.
        config: the root, of which ``ckpt.resume`` and ``retry`` ask for it.
        asked: when the command did, in seconds since the epoch: what it has completed itself, as of
            a job that is listed twice, is done.
    """
    if (folder / "result.json").stat().st_mtime >= asked:
        return False
    return config["ckpt"]["resume"] is None or bool(
        config["retry"] == "versions" and _other_versions(record)
    )


def difference(record: RunRecord, fix: str | None = None) -> str | None:
    """Return how an earlier run was made otherwise than it would be now, in one line, if it was.

    Args:
        record: what it left.
        fix: what makes it anew; None for what makes a completed run anew.
    """
    versions, threads = _other_versions(record), _other_threads(record)
    if not (versions or threads):
        return None
    fix = fix or ("retry=versions" if versions else "ckpt.resume=null")
    return f"made with {', '.join([*versions, *threads])}; {fix} runs it again"


def _other_versions(record: RunRecord) -> list[str]:
    here, there = environment.versions(), record.versions
    names = [name for name in here if name != "python" and here[name] != there.get(name)]
    return [f"{name} {there.get(name, 'unknown')} ({here[name]} here)" for name in names]


def _other_threads(record: RunRecord) -> list[str]:
    here, there = environment.threads(), record.environment.get("threads")
    return [] if here == there else [f"{there} threads ({here} here)"]


def twin(folder: Path, training: str, config: Node) -> Path | None:
    """Return a completed run whose weights are those that this one would come to, if there is one.

    Args:
        folder: of this run; those beside it are looked at.
        training: the key of what its weights depend on.
        config: the root.
    """
    # What is to be seen, or kept, while it trains; and what is to be made anew.
    watched = config["retention_every_epoch"] or config["keep"] is not None
    if watched or config["ckpt"]["resume"] is None:
        return None
    for other in sorted(folder.parent.glob("*")):
        record = store.read(other)
        if record is None or (record.status, record.training) != ("completed", training):
            continue
        # Where the start was chosen, averages lead to the last epoch instead.
        chosen = record.selection.epoch
        whole = (other / ("model.safetensors" if chosen else "checkpoints/last.ckpt")).is_file()
        if whole and not (config["retry"] == "versions" and _other_versions(record)):
            return other
    return None
