"""build() is the boundary: a config may name this project's classes and Lightning's, no others."""

import pytest

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load_state_dict_from_url",
        "pandas.read_pickle",
        "builtins.eval",
        "functools.partial",
        "clipbench.core.paths.os.system",
        "clipbench.core.environment.subprocess.run",
        "clipbench.core.environment.subprocess.Popen",
        "pytorch_lightning.trainer.trainer.os.system",
        "clipbench.results.store.write_text",
        "clipbench.nowhere.Thing",
    ],
)
def test_refused_wherever_it_stands(target):
    hostile = {"_target_": target, "args": "echo"}
    with pytest.raises(UserError, match=r"refused|cannot be imported"):
        build(hostile)
    nested = {"_target_": "clipbench.transforms.Augment", "scale": [{"x": hostile}]}
    with pytest.raises(UserError, match=r"refused|cannot be imported"):
        build(nested)


def test_a_key_that_the_constructor_does_not_take_is_named():
    with pytest.raises(UserError, match="hflop"):
        build({"_target_": "clipbench.transforms.Augment", "hflop": 1})


def test_recommended_is_not_for_the_constructor():
    node = {"_target_": "clipbench.transforms.Augment", "hflip": 0.5, "recommended": {"lr": 1}}
    assert build(node).hflip == 0.5


def test_what_a_constructor_refuses_is_refused_as_it_is():
    node = {"_target_": "clipbench.models.timm.Timm", "arch": "resnet5"}
    with pytest.raises(UserError, match=r"model\.arch=resnet5: unknown to timm"):
        build(node)
