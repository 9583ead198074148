"""The contrastive strategy against open_clip's own loss and a formula worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from clipbench.core.errors import UserError
from clipbench.strategies.base import Task
from clipbench.strategies.clip_loss import clip_loss
from clipbench.strategies.contrastive import Contrastive
from tests.strategies.test_finetune import TASK, resnet, tower


def normalised(seed, rows=6):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, 16, generator=generator, dtype=torch.float64), dim=-1)


def test_with_different_captions_it_is_open_clips_loss():
    image, text, scale = normalised(0), normalised(1), torch.tensor(14.3, dtype=torch.float64)
    ours = clip_loss(image, text, scale, torch.eye(6, dtype=torch.bool))
    torch.testing.assert_close(ours, ClipLoss()(image, text, scale))


def test_equal_captions_share_the_target():
    image, text, scale = normalised(0), normalised(1), torch.tensor(5.0, dtype=torch.float64)
    text[3] = text[0]
    same = torch.eye(6, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    by_hand = 0.0
    for scores in (scale * image @ text.T, scale * text @ image.T):
        log_p = scores - scores.logsumexp(1, keepdim=True)
        for row in range(6):
            positives = [0, 3] if row in (0, 3) else [row]
            by_hand -= sum(log_p[row, p] for p in positives) / len(positives) / 12
    torch.testing.assert_close(clip_loss(image, text, scale, same), by_hand)


@pytest.fixture
def prepared():
    mix = [{"weight": 0.3, "of": [0]}, {"weight": 0.7, "of": [1, 2]}]
    strategy = Contrastive(mix=mix, seed=3)
    return strategy, strategy.prepare(tower(), TASK)


def batch(size, rows=8):
    generator = torch.Generator().manual_seed(0)
    captions = [[f"a {c}", f"a {c} picture", f"{c}!"] for c in TASK.classes]
    return {
        "image": torch.randn(rows, 3, size, size, generator=generator),
        "label": torch.arange(rows) % 3,
        "index": torch.arange(rows),
        "captions": [captions[i % 3] for i in range(rows)],
    }


def test_a_kind_has_one_wording_a_step_keyed_by_the_step(prepared):
    strategy, classifier = prepared
    rows = batch(classifier.tower.preprocess.size)
    wordings = set()
    for step in range(20):
        kinds = strategy.drawn(rows, step)
        assert kinds == strategy.drawn(rows, step)
        (first, plain), (second, other) = kinds
        assert (first, second) == (0.3, 0.7)
        assert plain[0] == "a star"
        assert len({text.endswith("!") for text in other}) == 1
        wordings.add(other[0])
    assert wordings == {"a star picture", "star!"}


def test_the_loss_is_the_weighted_mean_over_the_kinds(prepared):
    strategy, classifier = prepared
    rows = batch(classifier.tower.preprocess.size)
    model, tokenizer = classifier.tower.model, classifier.tower.tokenizer()
    image = F.normalize(model.encode_image(rows["image"]), dim=-1)
    same = rows["label"][:, None] == rows["label"][None]
    by_hand = 0.0
    for weight, texts in strategy.drawn(rows, 5):
        text = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
        by_hand += weight * clip_loss(image, text, model.logit_scale.exp(), same)
    ours = strategy.loss(classifier, rows, smoothing=0.0, step=5)
    torch.testing.assert_close(ours, by_hand)


def test_without_kinds_any_caption_of_a_picture_is_taken():
    rows = batch(8)
    strategy = Contrastive()
    ((weight, texts),) = strategy.drawn(rows, 0)
    assert weight == 1.0
    assert all(text in own for text, own in zip(texts, rows["captions"], strict=True))
    assert texts != strategy.drawn(rows, 1)[0][1]


def test_everything_but_the_head_trains_and_the_head_follows_the_text_tower(prepared):
    strategy, classifier = prepared
    rows = batch(classifier.tower.preprocess.size)
    strategy.loss(classifier, rows, smoothing=0.0, step=0).backward()
    for name, parameter in classifier.named_parameters():
        assert (parameter.grad is None) == name.startswith("head."), name
    before = classifier.head.weight.clone()
    with torch.no_grad():
        classifier.tower.model.text_projection.mul_(-1)
    strategy.refresh(classifier)
    torch.testing.assert_close(classifier.head.weight, -before)


def test_the_logit_scale_is_clamped(prepared):
    strategy, classifier = prepared
    with torch.no_grad():
        classifier.tower.model.logit_scale.fill_(9.0)
    strategy.loss(classifier, batch(classifier.tower.preprocess.size), smoothing=0.0, step=0)
    assert classifier.tower.model.logit_scale.item() == pytest.approx(math.log(100))


def test_what_it_needs_is_said(prepared):
    strategy, classifier = prepared
    rows = batch(classifier.tower.preprocess.size)
    rows["captions"] = [["a star"]] * len(rows["image"])
    with pytest.raises(UserError, match=r"has 1 captions.*mix reads"):
        strategy.loss(classifier, rows, smoothing=0.0, step=0)
    with pytest.raises(UserError, match="no class weights"):
        strategy.loss(classifier, rows, smoothing=0.0, step=0, weights=torch.ones(2))
    with pytest.raises(UserError, match="no text side"):
        Contrastive().prepare(resnet(), Task(["a", "b"], [["a"], ["b"]]))
