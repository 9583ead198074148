"""What a comparison leaves open: what failed, what was left out, what nobody asked for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipbench.core.config import overrides
from clipbench.reporting.page.answers import Answer
from clipbench.results import frames
from clipbench.strategies import about


def untried(
    runs: frames.Runs,
    answers: Sequence[Answer],
    failed: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any],
) -> Iterator[str]:
    """Sentences, what was meant to be run first.

    Args:
        runs: completed ones.
        answers: to them.
        failed: jobs without a result, of a sweep's list.
        plan: of :mod:`clipbench.compare`; empty for another sweep.
    """
    yield from plan.get("dropped", {}).values()
    yield from plan.get("left", {}).values()
    yield from plan.get("shortened", {}).values()
    for job in failed:
        words = overrides.shell(job["overrides"])
        if plan and job["status"] == "interrupted":
            yield f"{words}: cut short, and kept; the same command goes on with it."
        else:
            yield f"{words}: {job['status']}, {job['error']}"
    records = [record for _, record in runs]
    yield from _axes([r for r in records if r["steps"]["total"]])
    texts = [r for r in records if "logit scale" in r["parameters"]["groups"]]
    tried = {record["strategy"] for record in texts}
    data = "classes" if any("val/acc" in record["final"] for record in texts) else "captions"
    others = [about.label(option) for option in about.proposed(data) if option not in tried]
    if texts and others:
        yield f"Other ways to tune a CLIP: {', '.join(others)} (strategy=)."
    if any(
        str(r["config"]["dataset"]["_target_"]).endswith("ImageFolderDataModule") for r in texts
    ) and not any(r["config"]["dataset"].get("class_names") for r in texts):
        yield (
            "Names of classes in plain words (dataset.class_names=FILE): they are the folders' "
            "names now, and a CLIP reads them."
        )
    for answer in answers:
        told = answer.leader.records[0]["data"][answer.split]
        if told["n"] != told["expected"]:
            yield (
                f"{answer.split} of {answer.dataset} has {told['n']:,} of its {told['expected']:,} "
                "pictures here."
            )


def _axes(trained: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the runs with an optimiser were all alike in."""
    if not trained:
        return

    def most(key: str) -> int:
        """The most values that one model and strategy was given."""
        values: dict[tuple[str, str], set[str]] = {}
        for record in trained:
            values.setdefault((record["model"], record["strategy"]), set()).add(str(record[key]))
        return max(map(len, values.values()))

    if most("seed") == 1:
        yield "Other seeds: the same training again may come out otherwise (seed=0,1,2)."
    if most("lr") == 1:
        rates = ", ".join(sorted({f"{record['lr']:g}" for record in trained}))
        yield f"Other learning rates than {rates} (lr=)."
    if most("freeze_depth") == 1 and {str(r["freeze_depth"]) for r in trained} == {"0"}:
        yield "Part of the network frozen (freeze_depth=), the usual advice for few pictures."
    if all(record["config"]["alphas"] is None for record in trained):
        yield "Averages of the start and the tuned weights (alphas=10), which often keep more."
