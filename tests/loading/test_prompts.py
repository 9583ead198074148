"""What is said of each class, against open_clip's own templates and by hand."""

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clipbench.core.config import compose
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.loading.prompts import Prompts, fill

CLASSES = ["rose", "iris"]
OWN = ["a photo of a {}, a type of flower."]


def test_a_template_takes_the_name_or_the_name_with_its_article():
    assert fill("a photo of a {}.", "rose") == "a photo of a rose."
    assert fill("satellite photo of {a}.", "airport") == "satellite photo of an airport."
    assert fill("satellite photo of {a}.", "dam") == "satellite photo of a dam."


def test_the_dataset_s_own_templates_unless_others_are_given():
    assert Prompts().of(CLASSES, OWN)[1] == ["a photo of a iris, a type of flower."]
    simple = build(compose.compose("prompts=simple")["prompts"])
    assert simple.of(CLASSES, OWN) == [["a photo of a rose."], ["a photo of a iris."]]


def test_openai_s_eighty_are_open_clip_s():
    said = build(compose.compose("prompts=openai")["prompts"]).of(CLASSES, OWN)
    assert said[0] == [template("rose") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert len(said[0]) == 80


@pytest.mark.parametrize("kind", ["json", "yaml", "csv"])
def test_a_bank_is_read_by_name_or_by_key(tmp_path, kind):
    bank = {"rose": ["a red rose", "petals, many", ""], "n02": ["a blue iris"]}
    path = tmp_path / f"bank.{kind}"
    if kind == "csv":
        rows = [f'{name},"{text}"' for name, texts in bank.items() for text in texts]
        path.write_text("\n".join(["class,caption", *rows]) + "\n")
    else:
        path.write_text(json.dumps(bank))
    prompts = build(compose.compose("prompts=file", f"prompts.file={path}")["prompts"])
    said = prompts.of(CLASSES, OWN, keys=["n01", "n02"])
    assert said == [["a red rose", "petals, many"], ["a blue iris"]]
    one = Prompts(file=str(path), use="one").of(CLASSES, OWN, keys=["n01", "n02"])
    assert one == [["a red rose"], ["a blue iris"]]


def test_a_bank_that_lacks_a_class_is_refused_by_name(tmp_path):
    (tmp_path / "bank.json").write_text('{"rose": ["a rose"], "iris": [""]}')
    with pytest.raises(UserError, match="no caption of 1 classes, first iris") as refused:
        Prompts(file=str(tmp_path / "bank.json")).of(CLASSES, OWN)
    assert refused.value.details == ["iris: no caption"]
    (tmp_path / "list.json").write_text('["rose"]')
    for bad in (tmp_path / "list.json", tmp_path / "absent.json"):
        with pytest.raises(UserError, match=r"prompts.file="):
            Prompts(file=str(bad)).of(CLASSES, OWN)
    with pytest.raises(UserError, match=r"prompts\.use=mean: unknown"):
        Prompts(use="mean")


def test_a_head_of_unequal_banks_is_the_mean_of_each_class_s_texts():
    tower = build(compose.compose("model=clip_tiny")["model"])
    said = [["a red star", "a star", "stars"], ["a heart"]]
    head = tower.zero_shot_head(said)
    with torch.no_grad():
        rows = []
        for texts in said:
            encoded = F.normalize(tower.model.encode_text(tower.tokenizer()(texts)), dim=-1)
            rows.append(F.normalize(encoded.mean(0), dim=0))
        by_hand = tower.model.logit_scale.exp() * torch.stack(rows)
    torch.testing.assert_close(head.weight, by_hand)
