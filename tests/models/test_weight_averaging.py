"""Averages of weights, against formulas by hand, brute force and torch's own statistics."""

from itertools import combinations

import pytest
import torch
from torch import nn

from clipbench.core.errors import UserError
from clipbench.models.weight_averaging import (
    fisher,
    fisher_merge,
    greedy,
    interpolate,
    reestimate,
    uniform,
)


def network(seed, width=5):
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU())
    net = nn.Sequential(body, nn.Linear(width, 3))
    net(torch.randn(16, 4))  # moves the running statistics
    return net.eval()


def states(*seeds):
    return [{k: v.clone() for k, v in network(s).state_dict().items()} for s in seeds]


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_interpolation_is_the_formula_over_all_keys_head_and_statistics_included(alpha):
    start, tuned = states(0, 1)
    start["0.1.num_batches_tracked"] += 7
    merged = interpolate(start, tuned, alpha)
    assert list(merged) == list(tuned)
    for name in tuned:
        if name.endswith("num_batches_tracked"):
            assert torch.equal(merged[name], tuned[name])
            continue
        expected = (1 - alpha) * start[name] + alpha * tuned[name]
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-6)


def test_the_ends_are_the_ends_to_the_bit_and_what_did_not_move_stays():
    start, tuned = states(0, 1)
    tuned["0.0.weight"] = start["0.0.weight"].clone()
    for alpha, end in ((0, start), (1, tuned)):
        for merge in (interpolate, lambda *of: fisher_merge(*of, (start, tuned))):
            merged = merge(start, tuned, alpha)
            floats = [n for n in end if end[n].is_floating_point()]
            assert all(torch.equal(merged[n], end[n]) for n in floats)
    assert torch.equal(interpolate(start, tuned, 0.3)["0.0.weight"], start["0.0.weight"])


def test_patching_leaves_the_head_out():
    start, tuned = states(0, 1)
    merged = interpolate(start, tuned, 0.25, kept=("1.",))
    assert torch.equal(merged["1.weight"], tuned["1.weight"])
    assert torch.equal(merged["1.bias"], tuned["1.bias"])
    expected = 0.75 * start["0.0.weight"] + 0.25 * tuned["0.0.weight"]
    torch.testing.assert_close(merged["0.0.weight"], expected)


def test_weights_of_different_networks_are_refused():
    one = network(0).state_dict()
    with pytest.raises(UserError, match=r"0\.0\.weight is \(5, 4\) in one and \(6, 4\) in another"):
        interpolate(one, network(0, width=6).state_dict(), 0.5)
    with pytest.raises(UserError, match=r"1\.bias is .* and not there in another"):
        uniform([one, {k: v for k, v in one.items() if k != "1.bias"}])
    with pytest.raises(UserError, match="no weights to average"):
        uniform([])


def test_the_fisher_of_a_linear_model_is_the_diagonal_by_hand():
    """The gradient of log p(y | x) is (1[y] - p) outer x; y by the same draws."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    inputs = torch.randn(50, 3)
    own = fisher(
        model,
        dict(model.named_parameters()),
        (row[None] for row in inputs),
        torch.Generator().manual_seed(1),
    )
    p = model(inputs).softmax(1).detach()
    generator = torch.Generator().manual_seed(1)
    drawn = torch.cat([torch.multinomial(row, 1, generator=generator) for row in p])
    slope = nn.functional.one_hot(drawn, 4) - p
    by_hand = torch.einsum("nc,nd->ncd", slope, inputs).square().mean(0)
    torch.testing.assert_close(own["weight"], by_hand)
    torch.testing.assert_close(own["bias"], slope.square().mean(0))


def test_the_fisher_is_the_expectation_over_the_models_own_labels():
    model = nn.Linear(2, 3)
    x = torch.tensor([[0.5, -1.0]])
    many = fisher(
        model,
        dict(model.named_parameters()),
        (x for _ in range(6000)),
        torch.Generator().manual_seed(0),
    )
    p = model(x).softmax(1).detach()[0]
    expected = (p * (1 - p))[:, None] * x.square()
    torch.testing.assert_close(many["weight"], expected, atol=0.01, rtol=0.05)


def test_a_fisher_merge_weighs_each_weight_and_floors_what_says_nothing():
    start, tuned = {"w": torch.tensor([1.0, 1.0, 1.0])}, {"w": torch.tensor([3.0, 3.0, 3.0])}
    fishers = ({"w": torch.tensor([2.0, 0.0, 0.0])}, {"w": torch.tensor([1.0, 1.0, 0.0])})
    merged = fisher_merge(start, tuned, 0.25, fishers)["w"]
    # 0.75*2*1 + 0.25*1*3 over 0.75*2 + 0.25*1; then 1e-8 against 1; then both at the floor
    expected = torch.tensor([2.25 / 1.75, 3.0, 1.5])
    torch.testing.assert_close(merged, expected, atol=1e-6, rtol=0)


def test_what_no_gradient_reaches_is_interpolated():
    start, tuned = states(0, 1)
    fishers = ({"1.bias": torch.ones(3)}, {"1.bias": torch.full((3,), 3.0)})
    merged = fisher_merge(start, tuned, 0.5, fishers)
    torch.testing.assert_close(
        merged["0.0.weight"], (start["0.0.weight"] + tuned["0.0.weight"]) / 2
    )
    torch.testing.assert_close(merged["1.bias"], (start["1.bias"] + 3 * tuned["1.bias"]) / 4)


def test_reestimated_statistics_are_those_of_the_data():
    net = network(0)
    data = torch.randn(64, 4) * 3 + 1
    assert reestimate(net, data.split(16))
    hidden = net[0][0](data).detach()
    batches = hidden.split(16)
    torch.testing.assert_close(net[0][1].running_mean, hidden.mean(0))
    expected = torch.stack([b.var(0) for b in batches]).mean(0)
    torch.testing.assert_close(net[0][1].running_var, expected)
    assert net[0][1].momentum == 0.1
    assert not reestimate(nn.Linear(2, 2), [data])


def test_a_uniform_soup_is_the_mean():
    three = states(0, 1, 2)
    soup = uniform(three)
    for name in three[0]:
        if three[0][name].is_floating_point():
            expected = torch.stack([s[name] for s in three]).mean(0)
            torch.testing.assert_close(soup[name], expected)
    assert torch.equal(soup["0.1.num_batches_tracked"], three[0]["0.1.num_batches_tracked"])
    before = network(0).state_dict()
    assert all(torch.equal(three[0][n], before[n]) for n in before)  # nothing was changed in place


@pytest.mark.parametrize("seed", range(20))
def test_greedy_is_what_trying_by_hand_gives(seed):
    """Against a walk that makes each mean from its ingredients anew, on points of a plane."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(5, 2, generator=generator, dtype=torch.float64)

    def score(state):
        return -float(state["w"].square().sum())

    scores = [score({"w": p}) for p in points]
    kept, soup, value = greedy(scores, lambda i: {"w": points[i]}, score)

    order = sorted(range(5), key=lambda i: scores[i], reverse=True)
    chosen = [order[0]]
    for i in order[1:]:
        if score({"w": points[[*chosen, i]].mean(0)}) > score({"w": points[chosen].mean(0)}):
            chosen.append(i)
    assert kept == chosen
    torch.testing.assert_close(soup["w"], points[chosen].mean(0))
    assert value == pytest.approx(score(soup), abs=1e-12)
    # By brute force over all soups, none is better than the best, and greedy no worse than one.
    soups = [c for n in range(1, 6) for c in combinations(range(5), n)]
    best = max(score({"w": points[list(c)].mean(0)}) for c in soups)
    assert max(scores) <= value <= best + 1e-12


def test_greedy_wants_strictly_better_and_may_keep_one():
    same = {"w": torch.ones(2)}
    kept, soup, _ = greedy([0.5, 0.5, 0.5], lambda i: same, lambda state: 0.5)
    assert kept == [0]
    assert torch.equal(soup["w"], same["w"])
