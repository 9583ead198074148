"""Another dataset in each batch: its share, its loss, its order, its place in a run's key."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.loading.samplers import KeyedSampler
from clipbench.models.base import Classifier
from clipbench.strategies.finetune import Finetune
from clipbench.strategies.linear_probe import LinearProbe
from clipbench.training.robustness.replay import Replay, Zipped, rows
from clipbench.transforms.augment import Augment
from tests.conftest import FEW, TINY, composed, result_json
from tests.test_run import run_here

MIX = ("mix=shapes", "mix.subset=4", "mix.shots=2", "mix.world_seed=1")


def test_a_share_of_each_batch_is_the_others():
    assert rows(64, 0.25) == (48, 16)
    assert rows(10, 0.5) == (5, 5)
    for batch_size, fraction in ((64, 0), (64, 1), (3, 0.1)):
        with pytest.raises(UserError, match="leave some for both"):
            rows(batch_size, fraction)


class Numbers(torch.utils.data.Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        return {"label": key[1]}


def zipped(own, other):
    made = [
        DataLoader(Numbers(n), batch_size=size, sampler=KeyedSampler(n, seed=0))
        for n, size in (own, other)
    ]
    return Zipped(*made)


@pytest.mark.parametrize("other", [(4, 2), (100, 3)])
def test_batches_are_zipped_for_as_long_as_the_first_lasts(other):
    loader = zipped((20, 3), other)
    assert len(loader) == len(list(loader)) == 7

    def epoch(number):
        loader.sampler.set_epoch(number)
        return [(b["label"].tolist(), b["mixed"]["label"].tolist()) for b in loader]

    first, second = epoch(0), epoch(1)
    assert first != second
    assert epoch(0) == first  # a function of the epoch alone
    assert sorted(i for own, _ in first for i in own) == list(range(20))
    drawn = [i for _, mixed in first for i in mixed]
    if other == (4, 2):  # begun anew three times over, each time in another order
        passes = [drawn[k : k + 4] for k in range(0, 12, 4)]
        assert all(sorted(one) == [0, 1, 2, 3] for one in passes)
        assert len({tuple(one) for one in passes}) > 1
    else:
        assert len(set(drawn)) == len(drawn) == 21


class Listener(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.heard = torch.nn.Linear(1, 1), []

    def training_step(self, batch, batch_idx):
        self.heard.append((batch["label"].tolist(), batch["mixed"]["label"].tolist()))
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval")
def test_the_trainer_tells_both_their_epoch(tmp_path):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    module, loader = Listener(), zipped((20, 3), (4, 2))
    trainer.fit(module, loader)
    expected = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        expected += [(b["label"].tolist(), b["mixed"]["label"].tolist()) for b in loader]
    assert module.heard == expected


def test_the_loss_is_cross_entropy_through_a_head_of_the_other_classes():
    config = composed("model=clip_tiny", *MIX)
    tower = build(config["model"])
    mixed = Replay(config["mix"], seed=0, weight=0.5)
    mixed.ready(tower, Finetune(), 4, Augment())
    said = [[t.format(c) for t in mixed.data.templates] for c in mixed.data.classes]
    head = tower.zero_shot_head(said)
    batch = next(iter(mixed.data.train_dataloader()))
    tuned = Classifier(tower, torch.nn.Linear(tower.feature_dim, 9), meaningful=True)
    tuned.eval()
    loss = mixed(tuned, batch)
    got = loss.detach()
    scores = head(F.normalize(tower(batch["image"]), dim=-1))
    torch.testing.assert_close(got, 0.5 * F.cross_entropy(scores, batch["label"]).detach())
    loss.backward()
    assert all(p.grad is None for p in tuned.head.parameters())
    assert mixed.start_head.weight.grad is None
    assert any(p.grad is not None for layer in tower.layers() for p in layer)


def test_what_cannot_be_mixed_is_refused():
    config = composed("model=clip_tiny", *MIX)
    mixed = Replay(config["mix"], seed=0, weight=1.0)
    with pytest.raises(UserError, match="an image tower that trains"):
        mixed.ready(build(config["model"]), LinearProbe(), 4, Augment())
    with pytest.raises(UserError, match="a model with text"):
        mixed.ready(build(composed(*TINY)["model"]), Finetune(), 4, Augment())


def test_a_run_with_a_mix_is_another_run(outputs):
    counts = "dataset.counts={train: 4, val: 8, test: 8, test_ood: 8}"
    words = ("model=clip_tiny", *FEW, "dataset.subset=3", counts, "batch_size=4", "lr=1e-3")
    found = {}
    for mix in ((), MIX, (*MIX, "mix_weight=0"), (*MIX, "micro_batch=1")):
        done = run_here(*words, *mix, model="clip_tiny")
        assert done.status == "completed", done.error
        found[mix] = result_json(Path(done.folder))
    plain, mixed, without, parts = found.values()
    assert len({r["training"] for r in found.values()}) == 4
    assert [r["steps"]["total"] for r in found.values()] == [2, 2, 2, 2]  # 6 by 4, by 3
    assert mixed["data"]["mix"]["n"] == 8
    assert "mix" not in plain["data"]
    losses = [r["curve"][1]["train/loss"] for r in found.values()]
    assert losses[1] > losses[2]
    assert mixed["curve"][1]["val/loss"] != without["curve"][1]["val/loss"]
    assert parts["curve"][1]["train/loss"] == pytest.approx(losses[1], rel=1e-3)
