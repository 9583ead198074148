"""What went wrong in a run, from its record: each symptom, its evidence, overrides to try.

Run: python -m clipbench.doctor run=DIR
     python -m clipbench.doctor model=clip_vitb32 dataset=flowers102 lr=1e-3 ...

The first examines a run that has ended. The second is the OpenCLIP guide's checklist before a run
starts: give it the arguments of clipbench.run. Exit code 0: nothing was found.
"""

from pathlib import Path

from clipbench.core import cli
from clipbench.core.config import compose, ranges
from clipbench.core.console import console, marked
from clipbench.reporting.doctor import case, checklist, symptoms


def main() -> None:
    """Examine a run or a config, and print the findings."""
    cli.opened(__doc__ or "", examine)


def examine(words: list[str]) -> int:
    """Print a run's findings, or a config's; return 1 if there are any."""
    if not any(word.startswith("run=") for word in words):
        return _before(words)
    folder = Path(cli.given(words, ("run",))["run"])
    return _after(case.read(folder))


def _after(run: case.Case) -> int:
    record = run.record
    title = f"{record.model} on {record.dataset}, {record.strategy}, {record.status}"
    findings = symptoms.diagnose(run)
    console.print(title, highlight=False, markup=False)
    if record.status in ("failed", "interrupted"):
        console.print(f"it ended early: {record.error}", highlight=False, markup=False)
    for finding in findings:
        marked(finding.name, "", "red")
        console.print(f"  {finding.evidence}", highlight=False, markup=False)
        for remedy in finding.remedies:
            console.print(f"  try: {remedy}", highlight=False, markup=False)
    if not findings:
        looked = len(symptoms.SYMPTOMS)
        console.print(f"nothing found; checked {looked} symptoms", highlight=False)
    return 1 if findings else 0


def _before(words: list[str]) -> int:
    composed = compose.compose(*words)
    ranges.check(composed)
    points = list(checklist.checks(composed))
    for right, what, remedy in points:
        if right:
            marked("pass ", what, "green")
        else:
            marked("warn ", f"{what}; try: {remedy}")
    return 0 if all(right for right, *_ in points) else 1


if __name__ == "__main__":
    main()
