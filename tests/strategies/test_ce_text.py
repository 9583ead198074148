"""Cross-entropy through the live text tower, against the formula by hand."""

import pytest
import torch
import torch.nn.functional as F

from clipbench.strategies.ce_text import CEText
from tests.strategies.test_finetune import TASK, batches, tower


def by_hand(clip, batch, said, **options):
    model, tokens = clip.model, clip.tokenizer()(said)
    image = F.normalize(model.encode_image(batch["image"]), dim=-1)
    text = F.normalize(model.encode_text(tokens), dim=-1)
    return F.cross_entropy(model.logit_scale.exp() * image @ text.T, batch["label"], **options)


def test_the_loss_is_over_all_classes_in_one_prompt_each():
    clip, strategy = tower(), CEText(seed=1)
    classifier = strategy.prepare(clip, TASK)
    (batch,) = batches(clip.preprocess.size, 1)
    said = strategy.texts(4)
    assert all(text in own for text, own in zip(said, TASK.prompts, strict=True))
    loss = strategy.loss(classifier, batch, smoothing=0.1, step=4)
    torch.testing.assert_close(loss, by_hand(clip, batch, said, label_smoothing=0.1))
    weights = torch.tensor([0.5, 1.0, 1.5])
    loss = strategy.loss(classifier, batch, smoothing=0.0, step=4, weights=weights)
    each = by_hand(clip, batch, said, reduction="none") * weights[batch["label"]]
    torch.testing.assert_close(loss, each.mean())


def test_each_step_draws_its_own_prompts():
    strategy = CEText()
    strategy.prepare(tower(), TASK)
    assert strategy.texts(3) == strategy.texts(3)
    drawn = {tuple(strategy.texts(step)) for step in range(60)}
    assert len(drawn) == 2 ** len(TASK.classes)  # two prompts of each of three classes


@pytest.mark.parametrize("size", [None, 2])
def test_every_part_of_both_towers_learns_and_parts_of_a_batch_change_nothing(size):
    clip, strategy = tower(), CEText()
    classifier = strategy.prepare(clip, TASK).eval()  # BatchNorm would see the parts by themselves
    strategy.micro_batch = size
    (batch,) = batches(clip.preprocess.size, 1)
    strategy.loss(classifier, batch, smoothing=0.0, step=0).backward()
    got = {name: p.grad.clone() for name, p in clip.model.named_parameters()}
    clip.zero_grad()
    by_hand(clip, batch, strategy.texts(0)).backward()
    for name, p in clip.model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)
