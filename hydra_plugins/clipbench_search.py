"""Hydra's sweeper for a search in place of a grid; it needs the extra ``optuna``.

Hydra imports this file whenever it starts, so the file imports nothing slow.
"""

import hashlib
import shlex
import warnings
from pathlib import Path
from typing import Any

from hydra.errors import HydraException

try:
    from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
except ImportError:
    OptunaSweeper = object


class Search(OptunaSweeper):  # type: ignore[misc]
    """The Optuna sweeper, over a study that the same command continues.

    Trials that an interrupted command started are suggested again, and their runs resume.
    """

    def sweep(self, arguments: list[str]) -> None:
        """Search the ranges of the overrides.

        Raises:
            HydraException: if there is no range, or another process runs this search.
        """
        from clipbench.core import paths
        from clipbench.core.locking import Held, Lock

        requested = sorted(word for word in arguments if not word.startswith("hparams_search="))
        _something(requested)
        sweeper = self.sweeper
        sweeper.study_name = (
            sweeper.study_name or hashlib.sha256("\n".join(requested).encode()).hexdigest()[:8]
        )
        folder = paths.outputs() / "searches" / sweeper.study_name
        try:
            lock = Lock(folder)
        except Held as holder:
            raise HydraException(f"{holder} runs this search. Wait for it: {folder}") from None
        try:
            self._search(arguments, folder)
        finally:
            lock.release()

    def _search(self, arguments: list[str], folder: Path) -> None:
        import optuna
        from sqlalchemy import URL

        sweeper = self.sweeper
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        place = URL.create("sqlite", database=str(folder / "study.db"))  # a path may contain a ?
        # This optuna relies on autocommit, which SQLAlchemy 2 does not do by default.
        sweeper.storage = sweeper.storage or optuna.storages.RDBStorage(
            str(place), engine_kwargs={"isolation_level": "AUTOCOMMIT"}
        )
        sweeper.direction = sweeper.direction or _direction(sweeper.config.monitor)
        with warnings.catch_warnings():  # about deprecated and experimental features of this optuna
            warnings.simplefilter("ignore")
            study = optuna.create_study(
                study_name=sweeper.study_name,
                storage=sweeper.storage,
                direction=sweeper.direction,
                load_if_exists=True,
            )
            sweeper.n_trials -= self._resume(study)
        sweeper.launcher.announced = True
        try:
            if sweeper.n_trials > 0:
                super().sweep(arguments)
        except ValueError:  # it takes the best trial even if none has completed
            if _done(study):
                raise
        _report(study)

    def _resume(self, study: Any) -> int:
        """Return how many trials are done; queue those that were started and not finished."""
        from optuna.trial import TrialState

        from clipbench.sweeps.estimate import expected

        if study.trials and hasattr(self.sweeper.sampler, "reseed_rng"):
            self.sweeper.sampler.reseed_rng()  # so that it does not draw the same values again
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        done = _done(study)
        seconds = [trial.duration.total_seconds() for trial in done]
        message = expected("trials", self.sweeper.n_trials, seconds, self.sweeper.n_jobs)
        print(f"search {study.study_name}: {message}", flush=True)
        return len(done)


def _something(requested: list[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = OverridesParser.create().parse_overrides(requested)
    if not any(word.is_sweep_override() for word in words):
        raise HydraException(
            "there is nothing to search. Give a key a range, as "
            "'lr=tag(log, interval(1e-6, 1e-3))', or values, as batch_size=32,64"
        )


def _direction(monitor: str | None) -> str:
    from clipbench.metrics import intervals

    # For the metric that a dataset selects by default, more is better.
    return "maximize" if intervals.goodness(monitor or "acc", 1.0) > 0 else "minimize"


def _done(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    trials: list[Any] = study.get_trials(states=(TrialState.COMPLETE,))
    return trials


def _report(study: Any) -> None:
    done = _done(study)
    if not done:
        print("no trial has completed", flush=True)
        return
    best = study.best_trial
    words = shlex.join(f"{name}={value}" for name, value in best.params.items())
    print(f"best of {len(done)} trials: {best.value:.4f} with {words}", flush=True)
