"""A search in place of a grid: what it draws, what it goes on with, what it refuses."""

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import OmegaConf

from clipbench.core import paths
from clipbench.core.locking import Lock
from hydra_plugins.clipbench_search import Search, _direction
from tests.conftest import FEW, TINY, clipbench, result_jsons

optuna = pytest.importorskip("optuna")

RANGE = "lr=tag(log, interval(1e-4, 1e-1))"


class Jobs:
    """In place of a launcher: scores by the distance of lr from 1e-2, or is interrupted."""

    def __init__(self, stop=None, fail=()):
        self.run, self.stop, self.fail = [], stop, fail

    def launch(self, overrides, initial_job_idx):
        returns = []
        for own in overrides:
            words = dict(word.split("=", 1) for word in own)
            self.run.append(float(words["lr"]))
            if len(self.run) == self.stop:
                raise KeyboardInterrupt
            value = None if len(self.run) in self.fail else -abs(float(words["lr"]) - 1e-2)
            returns.append(JobReturn(status=JobStatus.COMPLETED, _return_value=value))
        return returns


def search(tmp_path, *words, trials=3, monitor=None, **jobs):
    own = Search(
        sampler=optuna.samplers.TPESampler(seed=0),
        **dict.fromkeys(("direction", "storage", "study_name", "search_space")),
        **dict.fromkeys(("custom_search_space", "params")),
        **{"n_trials": trials, "n_jobs": 1, "max_failure_rate": 1},
    )
    own.sweeper.launcher, own.sweeper.hydra_context = Jobs(**jobs), object()
    own.sweeper.config = OmegaConf.create(
        {"monitor": monitor, "hydra": {"sweep": {"dir": str(tmp_path)}}}
    )
    try:
        own.sweep(list(words) or ["seed=0", RANGE])
    except KeyboardInterrupt:
        assert "stop" in jobs
    return own.sweeper


def test_a_search_goes_on_with_what_it_had_begun_and_draws_nothing_twice(outputs, tmp_path, capfd):
    first = search(tmp_path, trials=4, stop=3).launcher.run
    assert "4 trials, 0 of them done" in capfd.readouterr().out
    # Another order of words, and another place in a list of options, is the same search.
    second = search(tmp_path, RANGE, "hparams_search=optuna", "seed=0", trials=4).launcher.run
    said = capfd.readouterr().out
    assert "4 trials, 2 of them done; 0 s for the others" in said
    assert second[0] == first[2]
    assert len(set(first + second)) == 4
    best = min(first + second, key=lambda lr: abs(lr - 1e-2))
    assert f"best of 4 trials: {-abs(best - 1e-2):.4f} with lr={best}" in said
    assert search(tmp_path, trials=4).launcher.run == []
    assert len(search(tmp_path, trials=6).launcher.run) == 2
    assert len(search(tmp_path, "seed=1", RANGE, trials=2).launcher.run) == 2
    assert len(list((outputs / "searches").iterdir())) == 2


def test_a_trial_that_fails_is_none_of_those_asked_for(outputs, tmp_path, capfd):
    assert len(search(tmp_path, trials=3, fail=(2,)).launcher.run) == 3
    assert len(search(tmp_path, trials=3).launcher.run) == 1
    assert "best of 3 trials" in capfd.readouterr().out


def test_nothing_but_failures_is_said_and_no_traceback(outputs, tmp_path, capfd):
    search(tmp_path, trials=2, fail=(1, 2))
    assert "no trial has completed" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("monitor", "direction"),
    [(None, "maximize"), ("macro_f1", "maximize"), ("val/loss", "minimize"), ("ece", "minimize")],
)
def test_what_is_better_follows_from_the_metric(monitor, direction):
    assert _direction(monitor) == direction


def test_a_search_is_one_command_at_a_time_and_of_something(outputs, tmp_path):
    name = search(tmp_path, trials=1).study_name
    lock = Lock(paths.outputs() / "searches" / name)
    with pytest.raises(HydraException, match=r"process \d+ on .* runs this search. Wait for it"):
        search(tmp_path, trials=2)
    lock.release()
    with pytest.raises(HydraException, match=r"nothing to search\. Give a key a range"):
        search(tmp_path, "seed=0")


def test_a_search_through_the_command_line(outputs, tmp_path):
    words = (*TINY, *FEW, "logger=none", "monitor=loss", "lr=tag(log,interval(1e-3,1e-2))")
    # As if an earlier command had done one of the two, and begun another.
    before = search(tmp_path, *words, trials=2, monitor="loss", stop=2).launcher.run
    env = {"CLIPBENCH_OUTPUTS": str(outputs)}
    done = clipbench("-m", "hparams_search=optuna", *words, "hydra.sweeper.n_trials=2", env=env)
    assert done.returncode == 0, done.stderr
    assert "2 trials, 1 of them done" in done.stdout
    ((_, record),) = result_jsons(outputs)
    assert record["lr"] == before[1]
    assert "Warning" not in done.stderr
    study = optuna.load_study(None, f"sqlite:///{next(outputs.glob('searches/*/study.db'))}")
    assert study.trials[-1].value == record["curve"][-1]["val/loss"]
    assert study.direction.name == "MINIMIZE"
