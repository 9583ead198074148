"""The jobs of one command: how many there are and how many are done, run some at a time."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from clipbench.core.config import compose, overrides
from clipbench.core.devices import devices, gpus
from clipbench.core.jobs import Job, Outcome
from clipbench.core.locking import Held, Lock
from clipbench.results import store, sweep_log
from clipbench.sweeps import summary
from clipbench.sweeps.estimate import headline
from clipbench.sweeps.gpu_pool import GPUs
from clipbench.sweeps.launcher import launch, stop


class Session:
    """The jobs of one command: their outcomes, and the sweep's folder if it is a sweep."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.sweep: Path | None = None
        self._noting = threading.Lock()

    def job(self, config: DictConfig) -> Job:
        """Return the job of a composed config, without Hydra's part of it."""
        HydraConfig.instance().set_config(config)
        about = HydraConfig.get()
        if about.mode == RunMode.MULTIRUN:
            self.sweep = Path(about.sweep.dir)
            self.sweep.mkdir(parents=True, exist_ok=True)
        keys = [str(key) for key in config if key != "hydra"]
        resolved = compose.plain(OmegaConf.masked_copy(config, keys), complete=True)
        return Job(
            config=resolved,
            choices=dict(about.runtime.choices),
            overrides=list(map(overrides.typed, about.overrides.task)),
            retry=resolved["retry"] == "failed" or self.sweep is None,
        )

    def __call__(self, config: DictConfig) -> float | None:
        """Run one job: what Hydra calls without ``-m``."""
        whole = OmegaConf.merge(HydraConfig.instance().cfg or {}, config)
        assert isinstance(whole, DictConfig)
        (value,) = self.work([self.job(whole)], 1)
        return value

    def grid(
        self, jobs: Sequence[Job], at_once: int | str, announce: bool = True
    ) -> list[float | None]:
        """Run the jobs of a sweep, after printing how many they are and how long they may take.

        Args:
            jobs: at least one.
            at_once: how many at a time; ``auto``: one per GPU, else one per four cores.
            announce: whether to print; a search, whose jobs come one by one, does it itself.

        Returns:
            See :meth:`work`.
        """
        if at_once == "auto":
            at_once = (_on_gpus(jobs) and gpus()) or max(2, (os.cpu_count() or 1) // 4)
        number = min(int(at_once), len(jobs))
        if announce:
            print(headline(jobs, number), flush=True)
        return self.work(jobs, number)

    def cluster(
        self,
        jobs: Sequence[Job],
        run: Callable[[Sequence[Job]], Iterator[Outcome]],
        announce: bool = True,
    ) -> list[float | None]:
        """Run the jobs of a sweep on a cluster, and print how each ended.

        Args:
            jobs: at least one.
            run: runs all, and yields their outcomes in order.
            announce: see :meth:`grid`.

        Returns:
            See :meth:`work`.
        """
        if announce:
            print(headline(jobs, None), flush=True)
        ended = []
        for job, outcome in zip(jobs, run(jobs), strict=True):
            while outcome.status == "elsewhere":
                _wait_for(outcome)
                (outcome,) = run([job])
            self._note(outcome, job)
            ended.append(outcome)
        return [_score(outcome) for outcome in ended]

    def work(self, jobs: Sequence[Job], at_once: int) -> list[float | None]:
        """Run jobs, some at a time, and print how each ended.

        Returns:
            The val metric by which each run was selected; None if it has none.

        Raises:
            KeyboardInterrupt: after a signal, once the running jobs have ended.
        """
        lent = GPUs(gpus() if at_once > 1 and _on_gpus(jobs) else 0)
        labels = [f"[{n}] " if at_once > 1 else "" for n in range(1, len(jobs) + 1)]

        def one(number: int) -> Outcome:
            job = replace(jobs[number], at_once=at_once)
            if stop.signal:
                return Outcome("interrupted", signal=stop.signal)
            if self.sweep is not None:
                print(f"\n[{number + 1}] {overrides.shell(job.overrides)}", flush=True)
            with lent.lend(devices(job.config["trainer"]) if lent.count else 0) as environment:
                outcome = launch(replace(job, environment=environment), labels[number])
            with self._noting:
                self._note(outcome, job)
            return outcome

        with ThreadPoolExecutor(at_once) as pool:
            try:
                ended = list(pool.map(one, range(len(jobs))))
            except BaseException:
                stop.now(signal.SIGTERM)  # or the pool would wait for the running jobs
                raise
        for number in range(len(ended)):
            while ended[number].status == "elsewhere" and not stop.signal:
                _wait_for(ended[number])
                ended[number] = one(number)
        if stop.signal:
            raise KeyboardInterrupt
        return [_score(outcome) for outcome in ended]

    def _note(self, outcome: Outcome, job: Job) -> None:
        summary.job(outcome)
        if outcome.status == "elsewhere":
            return
        self.outcomes.append(outcome)
        if self.sweep is not None:
            sweep_log.append(self.sweep, outcome, job.overrides)

    def close(self) -> int:
        """Write the sweep's table, and return the exit code of the worst job."""
        if self.sweep is not None and self.outcomes:
            from clipbench.reporting.tables import sweep_tables

            for path in sweep_tables.sweep(self.sweep):
                print(path)
        return max((outcome.code for outcome in self.outcomes), default=0)


def _on_gpus(jobs: Sequence[Job]) -> bool:
    return any(job.config["trainer"]["accelerator"] not in ("cpu", "mps") for job in jobs)


def _wait_for(outcome: Outcome) -> None:
    """Wait until no process holds the run's folder, or a signal comes."""
    assert outcome.folder is not None
    print(f"waiting for {outcome.error}, which is at {outcome.folder}", flush=True)
    while not stop.signal:
        try:
            Lock(Path(outcome.folder)).release()
            return
        except Held:
            time.sleep(0.5)


def _score(outcome: Outcome) -> float | None:
    record = store.read(Path(outcome.folder)) if outcome.folder else None
    if record is None or not record.completed:
        return None
    epoch, metric = record.selection.epoch, record.selection.metric
    row: dict[str, Any] = next((row for row in record.curve if row["epoch"] == epoch), {})
    value: float | None = row.get(metric)
    return value
