"""LiT: a locked tower of any kind, its loss, and its file back through the public door."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from PIL import Image

import clipbench
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.inference import saved_model
from clipbench.models import weight_files
from clipbench.models.lit import LiT as Model
from clipbench.strategies.lit import LiT
from clipbench.training.run import execute
from tests.conftest import FEW, TINY, composed, result_jsons
from tests.strategies.test_finetune import TASK, resnet, tower

TEXT = {"width": 32, "layers": 2, "heads": 2}
LIT = [f"strategy.text.{name}={value}" for name, value in TEXT.items()]


def run(model, *words):
    choices = {"model": model, "dataset": "shapes", "strategy": "lit"}
    words = (*words, *FEW, "strategy=lit", *LIT)
    return execute(Job(composed(*words), choices, list(words)))


@pytest.mark.parametrize("make", [resnet, tower], ids=["resnet", "clip"])
def test_the_loss_is_open_clips_between_a_locked_tower_and_new_text(make):
    encoder = make()
    size = encoder.preprocess.size
    strategy = LiT(text=TEXT)
    classifier = strategy.prepare(encoder, TASK).eval()
    images = torch.randn(3, 3, size, size)
    said = ["a star", "a heart", "a cross"]
    batch = {"image": images, "label": torch.arange(3), "index": torch.arange(3)}
    batch["captions"] = [[text] for text in said]
    loss = strategy.loss(classifier, batch, smoothing=0.0, step=0)
    model = classifier.tower.model
    image = F.normalize(encoder.eval()(images), dim=-1)
    text = F.normalize(model.encode_text(classifier.tower.tokenizer()(said)), dim=-1)
    torch.testing.assert_close(loss, ClipLoss()(image, text, torch.tensor(10.0)))
    loss.backward()
    learns = {n for n, p in classifier.named_parameters() if p.grad is not None}
    assert learns == {
        f"tower.model.{n}" for n, _ in model.named_parameters() if not n.startswith("visual.")
    }
    assert not classifier.meaningful


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("timm", TINY),
        ("clip_tiny", ("model=clip_tiny", "model.pretrained=null")),
    ],
)
def test_a_run_loads_back_with_its_tokenizer(outputs, model, words):
    outcome = run(model, *words, "lr=1e-3")
    assert outcome.status == "completed", outcome.error
    ((folder, record),) = result_jsons(outputs)
    assert record["curve"][0]["val/acc"] is None
    groups = record["parameters"]["groups"]
    assert all(
        g["trainable"] == (n.startswith("text ") or n == "logit scale") * g["parameters"]
        for n, g in groups.items()
    )
    loaded, preprocess, tokenizer = clipbench.load(folder)
    again = saved_model.classifier(folder)
    with torch.no_grad():
        images = torch.randn(2, 3, again.tower.preprocess.size, again.tower.preprocess.size)
        tokens = tokenizer(["a striped star", "a heart"])
        image = loaded.encode_image(images, normalize=True)
        text = loaded.encode_text(tokens, normalize=True)
        torch.testing.assert_close(image, F.normalize(again.tower(images), dim=-1))
        torch.testing.assert_close(text, F.normalize(again.tower.encode_text(tokens), dim=-1))
    assert image.shape == text.shape
    assert preprocess(Image.new("RGB", (70, 50))).shape == images.shape[1:]
    # The head that was saved is the one that the loaded text tower makes.
    data = build(record["config"]["dataset"])
    data.prepare(0)
    prompts = build(record["config"]["prompts"])
    head = again.tower.zero_shot_head(prompts.of(data.classes, data.templates, data.keys))
    torch.testing.assert_close(head.weight, again.head.weight, rtol=1e-4, atol=1e-5)


def test_vocabularies():
    small, clip = (Model(resnet(), vocabulary=name, **TEXT) for name in ("small", "clip"))
    assert small.model.text.vocab_size == 4096
    assert clip.model.text.vocab_size == 49408
    assert small.tokenizer()(["a star"]).shape == (1, 32)
    with pytest.raises(UserError, match="Use small or clip"):
        Model(resnet(), vocabulary="mine", **TEXT)
    with pytest.raises(UserError, match="heads=3: does not divide a width of 32"):
        Model(resnet(), width=32, heads=3)


def test_a_file_of_another_text_tower_is_refused(tmp_path):
    lit = Model(resnet(), **TEXT)
    path = tmp_path / "lit.safetensors"
    weight_files.save(path, lit.native_state_dict(torch.nn.Linear(1, 1)), lit.metadata())
    again = Model(resnet(), **TEXT)
    again.load(path)
    for name, value in lit.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    with pytest.raises(UserError, match="does not fit LiT of test_resnet"):
        Model(resnet(), width=64, layers=1, heads=2).load(path)
