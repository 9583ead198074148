"""No class twice in a batch while that can be, every image once an epoch."""

import itertools
from collections import Counter

import numpy as np
import pytest

from clipbench.loading.samplers import UniqueSampler
from tests.datamodules.test_base import garden, splits  # noqa: F401

RNG = np.random.default_rng(0)
CASES = {
    "balanced": (np.repeat(np.arange(20), 12), 16),
    "as many classes as rows": (np.repeat(np.arange(16), 7), 16),
    "a short last batch": (np.repeat(np.arange(10), 7), 8),
    "a class for each batch, the short one too": (np.r_[[0] * 5, np.arange(1, 14)], 4),
    "a long tail": (np.repeat(np.arange(40), np.geomspace(16, 1, 40).astype(int)), 12),
    "gaps in the labels": (np.repeat([3, 7, 9, 30], 5), 4),
    "one batch": (np.arange(5), 8),
}


def batches(sampler, epoch):
    sampler.set_epoch(epoch)
    order = [i for _, i, _ in sampler]
    assert len(order) == len(sampler)
    return [order[k : k + sampler.batch_size] for k in range(0, len(order), sampler.batch_size)]


@pytest.mark.parametrize("case", CASES)
def test_no_class_is_twice_in_a_batch_where_each_has_no_more_images_than_batches(case):
    labels, size = CASES[case]
    labels = RNG.permutation(labels)
    count = -(-len(labels) // size)
    assert np.bincount(labels).max() <= count, "not a case of this kind"
    for seed, epoch in itertools.product(range(10), range(3)):
        found = batches(UniqueSampler(labels, seed, size), epoch)
        assert len(found) == count
        assert sorted(itertools.chain(*found)) == list(range(len(labels)))
        for batch in found:
            assert len(set(labels[batch])) == len(batch)


@pytest.mark.parametrize("counts", [(30, 3, 3), (50, 1), (7, 7, 7), (100, 40, 3, 3, 2, 1)])
@pytest.mark.parametrize("size", [4, 6])
def test_a_class_of_more_images_is_spread_evenly(counts, size):
    """Each full batch has its share of a class, rounded up or down."""
    labels = np.repeat(np.arange(len(counts)), counts)
    found = batches(UniqueSampler(labels, 1, size), 0)
    assert sorted(itertools.chain(*found)) == list(range(len(labels)))
    for label, of in enumerate(counts):
        held = [Counter(labels[batch].tolist())[label] for batch in found if len(batch) == size]
        assert max(held) - min(held) <= 1
        assert max(held) <= -(-of // (len(labels) // size))


def test_the_order_is_a_function_of_seed_and_epoch():
    labels, size = CASES["balanced"]
    one = UniqueSampler(labels, 5, size)
    epochs = [batches(one, epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]
    assert batches(UniqueSampler(labels, 5, size), 1) == epochs[1]
    assert batches(UniqueSampler(labels, 6, size), 0) != epochs[0]
    met = {frozenset(labels[batch]) for epoch in range(20) for batch in batches(one, epoch)}
    assert len(met) > 200, "the same classes meet again and again"


def test_a_dataset_is_asked_for_it(splits):  # noqa: F811
    data = garden(splits, balance="unique")
    labels = splits["train"].labels
    rows = [batch["label"].tolist() for batch in data.train_dataloader()]
    assert [len(row) for row in rows] == [5, 5, 2]
    assert sorted(itertools.chain(*rows)) == sorted(labels.tolist())
    assert all(max(Counter(row).values()) == -(-len(row) // 3) for row in rows)
