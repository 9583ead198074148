"""FLYP's loss against open_clip's, and both ways with duplicates against formulas by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from clipbench.core.errors import UserError
from clipbench.strategies.flyp import FLYP
from tests.strategies.test_finetune import TASK, resnet, tower


def rows(size, labels=(0, 1, 1, 2, 0, 1)):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(len(labels), 3, size, size, generator=generator),
        "label": torch.tensor(labels),
        "index": torch.arange(len(labels)),
        "captions": [["a caption that FLYP does not read"]] * len(labels),
    }


def features(clip, batch, captions):
    model = clip.model
    image = F.normalize(model.encode_image(batch["image"]), dim=-1)
    text = F.normalize(model.encode_text(clip.tokenizer()(captions)), dim=-1)
    return image, text, model.logit_scale.exp()


@pytest.mark.parametrize("step", [0, 7])
def test_negatives_are_open_clips_loss_on_prompts_of_the_classes(step):
    clip = tower()
    strategy = FLYP(seed=3)
    classifier = strategy.prepare(clip, TASK)
    batch = rows(clip.preprocess.size)
    ((_, said),) = strategy.drawn(batch, step)
    for caption, label in zip(said, batch["label"].tolist(), strict=True):
        assert caption in TASK.prompts[label]
    loss = strategy.loss(classifier, batch, smoothing=0.0, step=step)
    torch.testing.assert_close(loss, ClipLoss()(*features(clip, batch, said)))


def test_positives_share_the_target_among_the_pictures_of_a_class():
    clip = tower()
    strategy = FLYP(duplicates="positives")
    classifier = strategy.prepare(clip, TASK)
    batch = rows(clip.preprocess.size)
    ((_, said),) = strategy.drawn(batch, 0)
    image, text, scale = features(clip, batch, said)
    labels, by_hand = batch["label"].tolist(), 0.0
    for scores in (scale * image @ text.T, scale * text @ image.T):
        log_p = scores.log_softmax(1)
        for i, label in enumerate(labels):
            own = [j for j, other in enumerate(labels) if other == label]
            by_hand = by_hand - sum(log_p[i, j] for j in own) / len(own)
    loss = strategy.loss(classifier, batch, smoothing=0.0, step=0)
    torch.testing.assert_close(loss, by_hand / (2 * len(labels)))
    negatives = FLYP()
    other = negatives.prepare(tower(), TASK)
    assert not torch.isclose(negatives.loss(other, batch, smoothing=0.0, step=0), loss)


def test_a_draw_has_every_prompt_in_time():
    strategy = FLYP()
    strategy.prepare(tower(), TASK)
    batch = rows(8, [0] * 4)
    said = {text for step in range(20) for text in strategy.drawn(batch, step)[0][1]}
    assert said == set(TASK.prompts[0])


@pytest.mark.parametrize(("clamp", "left"), [(False, 9.0), (True, math.log(100))])
def test_the_logit_scale_trains_and_is_clamped_only_if_asked(clamp, left):
    clip = tower()
    strategy = FLYP(clamp=clamp)
    classifier = strategy.prepare(clip, TASK)
    with torch.no_grad():
        clip.model.logit_scale.fill_(9.0)
    strategy.loss(classifier, rows(clip.preprocess.size), smoothing=0.0, step=0).backward()
    assert clip.model.logit_scale.item() == pytest.approx(left)
    assert clip.model.logit_scale.grad.item() != 0


def test_what_has_no_meaning_is_refused():
    with pytest.raises(UserError, match="there are positives, negatives, masked"):
        FLYP(duplicates="both")
    with pytest.raises(UserError, match="no text side"):
        FLYP().prepare(resnet(), TASK)
