"""Staged unfreezing: bit-unchanged while frozen, and as if it had been so from the start."""

import copy

import pytest
import torch

from clipbench.core.errors import UserError
from clipbench.strategies.finetune import Finetune
from clipbench.training import schedule
from clipbench.training.module import ClassificationModule
from tests.strategies.test_finetune import TASK, batches, recipe_of, resnet, tower


def epochs(classifier, strategy, recipe, count, size):
    """The weights and statistics after each epoch of two steps, by the module itself."""
    module = ClassificationModule(classifier, strategy, recipe, schedule.Schedule(100, 0), None)
    module.log = lambda *args, **kwargs: None
    optimizer = module.configure_optimizers()["optimizer"]
    left = [copy.deepcopy(classifier.state_dict())]
    for epoch in range(count):
        strategy.begin_epoch(classifier, epoch)
        module.train()
        for batch in batches(size, 2, seed=epoch):
            optimizer.zero_grad()
            strategy.loss(classifier, batch, smoothing=0.0, step=0).backward()
            optimizer.step()
        left.append(copy.deepcopy(classifier.state_dict()))
    return left


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("make", [tower, resnet], ids=["clip", "resnet"])
def test_what_is_frozen_stays_to_the_bit_until_its_stage(make):
    encoder = make()
    depth = len(encoder.layers()) - 3
    strategy = Finetune(freeze_depth="all", head="random", stages=[(1, depth), (2, 0)])
    classifier = strategy.prepare(encoder, TASK)
    # Decay without gradient would move what is frozen, too.
    recipe = recipe_of("model=clip_tiny", "lr=1e-3", "weight_decay=0.5")
    left = epochs(classifier, strategy, recipe, 3, encoder.preprocess.size)
    names = {id(p): name for name, p in classifier.named_parameters()}
    layers = [{names[id(p)] for p in layer} for layer in encoder.layers()]
    head = {"head.weight", "head.bias"}
    parameters = set().union(*layers) | head
    stages = [head, set().union(*layers[depth + 1 :]) | head, parameters]
    for before, after, expected in zip(left[:-1], left[1:], stages, strict=True):
        assert moved(before, after) & parameters == expected
    # Running statistics of frozen blocks stay too, and nothing of a text side ever moves.
    statistics = set(left[0]) - parameters
    assert not moved(left[0], left[1]) & statistics
    second, third = (moved(left[i], left[i + 1]) & statistics for i in (1, 2))
    assert second < third
    assert all("running" in name or "num_batches" in name for name in third)


def test_all_that_ever_trains_is_in_the_optimiser_from_the_start():
    encoder = resnet()
    strategy = Finetune(freeze_depth="all", stages=[(1, 0)])
    classifier = strategy.prepare(encoder, TASK)
    groups = strategy.param_groups(classifier, recipe_of("model=clip_tiny"))
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in classifier.parameters()}


def test_a_single_stage_at_the_start_is_that_depth():
    recipe = recipe_of("model=clip_tiny", "lr=1e-3")
    states = []
    for options in ({"freeze_depth": 2}, {"freeze_depth": 4, "stages": [(0, 2)]}):
        encoder = resnet()
        torch.manual_seed(5)
        strategy = Finetune(head="random", **options)
        classifier = strategy.prepare(encoder, TASK)
        states.append(epochs(classifier, strategy, recipe, 2, encoder.preprocess.size)[-1])
    assert not moved(*states)


def test_freezing_again_is_freezing():
    encoder = resnet()
    strategy = Finetune(stages=[(1, "all")])
    classifier = strategy.prepare(encoder, TASK)
    recipe = recipe_of("model=clip_tiny", "lr=1e-3", "weight_decay=0.5")
    left = epochs(classifier, strategy, recipe, 2, encoder.preprocess.size)
    assert moved(left[1], left[2]) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("stages", [[(2, 0), (1, 2)], [(1, 0), (1, 2)], [(-1, 0)]])
def test_stages_that_do_not_follow_each_other_are_refused(stages):
    with pytest.raises(UserError, match="epochs must rise"):
        Finetune(stages=stages)


def test_a_depth_that_is_not_there_is_refused_before_training():
    with pytest.raises(UserError, match=r"freeze_depth=9 is not possible here; use 0\.\.4 or all"):
        Finetune(stages=[(3, 9)]).prepare(resnet(), TASK)
