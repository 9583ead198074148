"""The CLIP loss with duplicates among the pairs, and on two ranks, against formulas by hand."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from clipbench.strategies.clip_loss import clip_loss, gathered, same
from clipbench.strategies.contrastive import Contrastive
from tests.strategies.test_finetune import TASK, tower


def normalised(seed, rows=6):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 16, generator=generator, dtype=torch.float64), dim=-1)


SCALE = torch.tensor(7.0, dtype=torch.float64)
# Pictures 0 and 1 are one, and so are the captions of 1 and 4: 0 and 4 are not each other's.
CAPTIONS, PICTURES = ["a", "b", "c", "d", "b", "e"], [3, 3, 5, 6, 7, 8]
ALIKE = {0: {0, 1}, 1: {0, 1, 4}, 2: {2}, 3: {3}, 4: {1, 4}, 5: {5}}


def test_pairs_are_alike_that_agree_in_their_caption_or_their_picture():
    found = same(CAPTIONS, PICTURES)
    assert {i: set(row.nonzero().flatten().tolist()) for i, row in enumerate(found)} == ALIKE
    assert torch.equal(same(CAPTIONS, PICTURES, alike=False), torch.eye(6, dtype=torch.bool))
    # Texts whose characters Python cannot encode by itself come from files, too.
    assert same(["\udc80", "\udc80", "x"]).sum() == 5


@pytest.mark.parametrize("masked", [False, True])
def test_duplicates_share_the_target_or_are_left_out(masked):
    image, text = normalised(0), normalised(1)
    by_hand = 0.0
    for scores in (SCALE * image @ text.T, SCALE * text @ image.T):
        for row in range(6):
            others = ALIKE[row] - {row} if masked else set()
            below = sum(scores[row, j].exp() for j in range(6) if j not in others)
            wanted = {row} if masked else ALIKE[row]
            by_hand -= sum((scores[row, j].exp() / below).log() for j in wanted) / len(wanted) / 12
    ours = clip_loss(image, text, SCALE, same(CAPTIONS, PICTURES), masked=masked)
    torch.testing.assert_close(ours, by_hand, rtol=1e-12, atol=0)


def test_negatives_are_open_clips_loss():
    image, text = normalised(0), normalised(1)
    ours = clip_loss(image, text, SCALE, same(CAPTIONS, PICTURES, alike=False))
    torch.testing.assert_close(ours, ClipLoss()(image, text, SCALE))


DUPLICATES = ("positives", "masked", "negatives")
# Each half has duplicates of its own, and of the other half: pictures by number, captions by text.
NUMBERS = [0, 1, 2, 3, 4, 5, 6, 6, 8, 1, 10, 11, 12, 13, 14, 15]
TEXTS = [f"a {c}" for c in "abccefghijklahop"]


def rows(start, stop):
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(16, 3, 32, 32, generator=generator, dtype=torch.float64)
    return {
        "image": image[start:stop],
        "label": torch.full((stop - start,), -1),
        "index": torch.tensor(NUMBERS[start:stop]),
        "captions": [[text, f"{text}!"] for text in TEXTS[start:stop]],
    }


def gradients(start, stop):
    """Of all that trains, for each way with duplicates, at once and three rows at a time."""
    strategy, found = Contrastive(seed=5), {}
    clip = tower("clip_vitb32", "model.arch=tiny-vit")
    classifier = strategy.prepare(clip.double(), TASK)
    for strategy.duplicates in DUPLICATES:
        for strategy.micro_batch in (None, 3):
            classifier.zero_grad()
            strategy.loss(classifier, rows(start, stop), smoothing=0.0, step=2).backward()
            trained = {n: p.grad for n, p in classifier.named_parameters() if p.requires_grad}
            found[f"{strategy.duplicates} {strategy.micro_batch}"] = trained
    return found


def half(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = gradients(8 * rank, 8 * rank + 8)
    for trained in found.values():
        for gradient in trained.values():  # as DDP does
            dist.all_reduce(gradient)
            gradient /= 2
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


def test_two_ranks_of_8_pairs_have_the_gradient_of_one_of_16(tmp_path):
    whole = gradients(0, 16)
    torch.testing.assert_close(whole["masked 3"], whole["masked None"], rtol=1e-12, atol=1e-15)
    # A fork starts at once; where there is a GPU it would break autograd.
    way = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    ranks = [way.Process(target=half, args=(rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    assert [process.exitcode for process in ranks] == [0, 0]
    shared = torch.load(tmp_path / "found.pt", weights_only=True)
    first, second = gradients(0, 8), gradients(8, 16)
    for name, trained in whole.items():
        size = max(float(g.abs().max()) for g in trained.values())
        for parameter, gradient in trained.items():
            error = (shared[name][parameter] - gradient).abs().max()
            assert error < 1e-12 * size, (name, parameter)
        # Without the other rank's pairs it is another loss.
        halves = {n: (first[name][n] + second[name][n]) / 2 for n in trained}
        worst = max(float((halves[n] - g).abs().max()) for n, g in trained.items())
        assert worst > 1e-3 * size, name


def test_alone_nothing_is_gathered():
    one = torch.ones(3, requires_grad=True)
    assert gathered(one) is one
