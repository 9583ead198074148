"""What a command would cost: against logs that others published, and counts made by hand."""

import pytest

from clipbench import plan
from clipbench.core import paths
from clipbench.reporting.tables import costs
from clipbench.reporting.tables.costs import Job
from clipbench.results import evidence
from clipbench.sweeps import cost_plan


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs", "strategy", "steps"),
    [
        (1020, 512, 10, "finetune", 20),  # Flowers102 in WiSE-FT's code, which keeps what is left
        (3334, 512, 10, "finetune", 70),
        (6667, 512, 10, "finetune", 140),
        (3334, 128, 10, "finetune", 270),
        (76863, 512, 10, "finetune", 1510),
        (129809, 512, 10, "finetune", 2540),
        (4376, 64, 5, "contrastive", 340),  # Jina's notebook
    ],
)
def test_steps_are_those_of_the_sources(pictures, batch, epochs, strategy, steps):
    assert Job("clip_vitb32", strategy, pictures, epochs, batch, 0).steps == steps


def test_gpu_hours_are_ft_clips_own_and_follow_from_the_operations():
    own = costs.of_cell(
        {"model": "clip_vitb16", "dataset": "imagenet", "train": "train+val", "epochs": 50}
    )
    assert own == pytest.approx(8 * (6 + 1 / 60 + 54 / 3600), rel=0.02)  # its log: 6:01:54 on 8
    whole = Job("clip_vitb32", "finetune", 1000, 1, 64, 0)
    half = Job("clip_vitb32", "finetune", 1000, 1, 64, 0, freeze_depth="6")
    head = Job("clip_vitb32", "finetune", 1000, 1, 64, 0, freeze_depth="all")
    ratios = [costs.gpu_hours(job) / costs.gpu_hours(whole) for job in (half, head)]
    assert ratios == pytest.approx([2 / 3, 1 / 3])
    probe = Job("clip_vitb32", "linear_probe", 1000, 50, 64, 0)
    assert costs.gpu_hours(probe) == pytest.approx(costs.gpu_hours(head))  # its features are kept
    both = Job("clip_vitb32", "contrastive", 1000, 1, 64, 0)
    more = (8.82 * 3 + 5.96 * 3) / (8.82 * 3)
    assert costs.gpu_hours(both) / costs.gpu_hours(whole) == pytest.approx(more)
    large = Job("clip_vitb32", "finetune", 1000, 1, 64, 0, image_size=448)
    assert costs.gpu_hours(large) / costs.gpu_hours(whole) == pytest.approx(4)
    assert costs.gpu_hours(Job("clip_tiny", "finetune", 1000, 1, 64, 0)) is None


def test_memory_is_as_the_source_blog_found_it():
    """The blog: 512 pictures on four GPUs took about 30 GB in all; each has its own weights."""
    one = costs.memory_bytes(Job("clip_vitb32", "finetune", 1, 1, 128, 0))
    assert 4 * one / 1e9 == pytest.approx(30, rel=0.25)
    frozen = Job("clip_vitb32", "finetune", 1, 1, 128, 0, freeze_depth="all")
    assert costs.memory_bytes(frozen) == pytest.approx(4 * 151.28e6)
    less = costs.memory_bytes(Job("clip_vitb32", "finetune", 1, 1, 512, 0), micro_batch=128)
    assert less == pytest.approx(one)


def told(capsys, *words):
    assert plan.plan([*words]) == 0
    return capsys.readouterr().out


def test_an_experiments_grid_is_counted_and_may_be_cut(capsys):
    whole = told(capsys, "experiment=freeze_depth")
    assert "24 runs: " in whole
    assert "s at the pace here" in whole
    cut = told(capsys, "-m", "experiment=freeze_depth", "seed=0", "freeze_depth=0,3,6")
    assert "3 runs: " in cut
    assert "1 run: " in told(capsys, "experiment=freeze_depth", "seed=0", "freeze_depth=3")


def test_a_row_says_steps_hours_memory_and_disk(capsys):
    words = ("model=clip_vitb32,resnet50", "dataset=flowers102", "recipe=blog_clip", "seed=0,1")
    text = told(capsys, *words)
    clip, resnet = (
        [cell.strip() for cell in line.strip("│┃ \n").split("│")]
        for line in text.splitlines()
        if "flowers102" in line
    )
    assert clip[:8] == ["2", "clip_vitb32", "flowers102", "finetune", "0", "1020", "10", "20"]
    evaluated = 11 * 1020 + 1020 + 6149  # val in each epoch; at the end val and test
    each = costs.gpu_hours(Job("clip_vitb32", "finetune", 1020, 10, 512, evaluated))
    assert float(clip[8]) == pytest.approx(each, rel=1e-3)
    assert float(resnet[7]) == 20
    assert "4 runs: " in text


def test_zero_shot_takes_no_step_and_what_is_not_known_is_not_made_up(capsys):
    for config, choices, count in cost_plan.configs(["strategy=zero_shot", "seed=0,1,2"]):
        job, row = cost_plan.described(config, choices)
        assert (count, job.steps, row[-1]) == (3, 0, 0)
    text = told(capsys, "recipe=auto")
    assert "its length is not known before its data are read" in text
    (config, choices, _), *_ = cost_plan.configs(["dataset=imagefolder", "dataset.root=/photos"])
    assert cost_plan.described(config, choices)[0] is None


@pytest.mark.parametrize(
    ("words", "pictures"),
    [
        (["dataset=shapes"], 24 * 80),
        (["dataset=shapes", "dataset.shots=5"], 24 * 5),
        (["dataset=shapes", "dataset.scene=static"], 1430),
        (["dataset=flowers102", "dataset.shots=4"], 408),
        (["dataset=coco", "strategy=contrastive", "strategy.captions=all"], 5 * 113287),
        (["dataset=food101"], 75750),
    ],
)
def test_pictures_of_an_epoch(words, pictures):
    ((config, choices, _),) = cost_plan.configs(words)
    assert cost_plan.trained_on(choices["dataset"], config) == pictures


def test_runs_made_here_say_what_another_takes(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(evidence, "gather", lambda: {})
    text = told(capsys, "model=clip_tiny", "dataset=shapes")
    assert "at the pace here" not in text
    assert paths.outputs() == tmp_path
