"""What a comparison did not try: failed jobs, jobs that were left out, and further options."""

from collections.abc import Iterator, Sequence

from clipbench.core.config import overrides
from clipbench.core.config.option_files import Node
from clipbench.reporting.page.answers import Answer
from clipbench.results import frames
from clipbench.results.record import RunRecord
from clipbench.strategies import about


def untried(
    runs: frames.Runs, answers: Sequence[Answer], failed: Sequence[Node], plan: Node
) -> Iterator[str]:
    """Yield a sentence for each thing that was not tried, planned runs first.

    The arguments are those of :func:`clipbench.reporting.page.page.rendered`, with its answers.
    """
    for reason in ("dropped", "left", "shortened"):
        yield from plan.get(reason, {}).values()
    for job in failed:
        words = overrides.shell(job["overrides"])
        if plan and job["status"] == "interrupted":
            yield f"{words}: interrupted and saved; the same command continues it."
        else:
            yield f"{words}: {job['status']}, {job['error']}"
    records = [record for _, record in runs]
    yield from _axes([r for r in records if r.steps.total])
    texts = [r for r in records if r.reads_text]
    tried = {record.strategy for record in texts}
    data = "classes" if any("val/acc" in record.final for record in texts) else "captions"
    ways = [about.label(option) for option in about.proposed(data) if option not in tried]
    if texts and ways:
        yield f"Other ways to tune a CLIP: {', '.join(ways)} (strategy=)."
    datasets = [record.config["dataset"] for record in texts]
    folders = any(str(node["_target_"]).endswith("ImageFolderDataModule") for node in datasets)
    if folders and not any(node.get("class_names") for node in datasets):
        yield (
            "Class names in plain words (dataset.class_names=FILE): they are the folders' names "
            "now, and a CLIP reads them."
        )
    for answer in answers:
        split = answer.leader.records[0].data[answer.split]
        if split.n != split.expected:
            size = f"{split.n:,} of its {split.expected:,} images here"
            yield f"{answer.split} of {answer.dataset} has {size}."


def _axes(trained: Sequence[RunRecord]) -> Iterator[str]:
    """Yield a sentence for each setting that did not vary over the runs with an optimiser."""
    if not trained:
        return

    def most(key: str) -> int:
        """Return the largest number of values that any model and strategy has of a key."""
        values: dict[tuple[str, str], set[str]] = {}
        for record in trained:
            values.setdefault((record.model, record.strategy), set()).add(str(getattr(record, key)))
        return max(map(len, values.values()))

    if most("seed") == 1:
        yield "Other seeds: the same training may end elsewhere with another one (seed=0,1,2)."
    if most("lr") == 1:
        rates = ", ".join(sorted({f"{record.lr:g}" for record in trained}))
        yield f"Other learning rates than {rates} (lr=)."
    if most("freeze_depth") == 1 and {str(r.freeze_depth) for r in trained} == {"0"}:
        yield "Freezing part of the network (freeze_depth=), the usual advice for few images."
    if all(record.config["alphas"] is None for record in trained):
        averages = "Averages of the weights before and after training"
        yield f"{averages} (alphas=10), which often forget less."
