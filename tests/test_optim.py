"""Groups, schedule and plan, against formulas worked by hand."""

import math

import pytest
import torch
from torch import nn

from clipbench import optim


def wise_ft_lr(base, step, warmup, steps):
    """WiSE-FT, src/models/utils.py, written again from its description."""
    if step < warmup:
        return base * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) * base


def test_schedule_is_wise_fts():
    schedule = optim.Schedule(total=40, warmup=10)
    for step in range(40):
        assert 3e-5 * schedule.factor(step) == pytest.approx(wise_ft_lr(3e-5, step, 10, 40))


def test_the_optimiser_really_follows_it_in_every_group():
    layer = nn.Linear(3, 2)
    groups = optim.param_groups(
        layer.named_parameters(), name="x", lr=0.1, weight_decay=0.2, decay_all=False
    )
    optimizer = optim.optimizer(groups, name="sgd", betas=(0.9, 0.99), eps=1e-8, momentum=0.9)
    schedule = optim.Schedule(total=8, warmup=3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    for step in range(8):
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(0.1 * schedule.factor(step))
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs", "warmup", "share"),
    # PEERS' table: what WiSE-FT's 500 warm-up steps reach on each dataset.
    [(1020, 512, 10, 500, 0.04), (3334, 512, 10, 500, 0.14), (76_863, 512, 10, 500, 1.0)],
)
def test_peak_of_a_warmup_that_never_ends(pictures, batch, epochs, warmup, share):
    plan = optim.plan(
        batches=math.ceil(pictures / batch), epochs=epochs, warmup=0.0, warmup_steps=warmup
    )
    reached = max(plan.factor(step) for step in range(plan.total))
    assert plan.peak == pytest.approx(reached)
    assert plan.peak == pytest.approx(share, abs=0.005)


def test_warmup_is_a_share_of_the_run_unless_given_in_steps():
    assert optim.plan(batches=16, epochs=10, warmup=0.1, warmup_steps=None).warmup == 16
    assert optim.plan(batches=16, epochs=10, warmup=0.1, warmup_steps=3).warmup == 3


def test_decay_rule():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.class_embedding = nn.Parameter(torch.zeros(4))
            self.positional_embedding = nn.Parameter(torch.zeros(5, 4))
            self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 4)

    net = Net()
    net.linear.bias.requires_grad_(False)
    common = {"name": "tower", "lr": 1.0, "weight_decay": 0.1}
    with_decay, without = optim.param_groups(net.named_parameters(), decay_all=False, **common)
    assert [id(p) for p in with_decay["params"]] == [id(net.linear.weight)]
    assert with_decay["weight_decay"] == 0.1
    assert without["weight_decay"] == 0
    assert len(without["params"]) == 4  # two embeddings, the norm's two; not the frozen bias
    (single,) = optim.param_groups(net.named_parameters(), decay_all=True, **common)
    assert len(single["params"]) == 5
