"""Weight files: whole ones are read, bad ones refused in one line, and none is ever executed."""

import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from clipbench.core.errors import UserError
from clipbench.models import weight_files


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


class Payload:
    """What an attacker's file holds: a call that leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def poisoned(path, mark, kind):
    content = {"state_dict": {"weight": torch.zeros(2)}, "extra": Payload(mark)}
    if kind == "zip":
        torch.save(content, path)
    elif kind == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"extra": Payload(mark)}, protocol=2))
    return path


@pytest.mark.parametrize("environment", [{}, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}])
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_malicious_file_is_refused_and_not_executed(
    tmp_path, monkeypatch, kind, suffix, environment
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = poisoned(tmp_path / f"x{suffix}", tmp_path / "mark", kind)
    with pytest.raises(UserError) as refused:
        weight_files.read(path)
    assert not (tmp_path / "mark").exists()
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    if suffix != ".safetensors":
        assert "holds code or objects (posix.system)" in str(refused.value)
    assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == environment.get(
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    )


def test_the_payload_does_execute_where_nobody_guards(tmp_path):
    """The test above would see it: here is the same file, read as pickle reads."""
    path = poisoned(tmp_path / "x.pt", tmp_path / "mark", "pickle")
    pickle.loads(path.read_bytes())
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, net, suffix, kept):
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save(net.state_dict(), path)
    else:
        weight_files.save(path, net.state_dict(), {})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="is cut off or not a weight file") as refused:
        weight_files.read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.bin"])
def test_other_files_are_refused(tmp_path, name):
    for content in (b"<html>404</html>", b"\xff" * 4096, b"\0" * 64, b"hello" * 99):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError):
            weight_files.read(tmp_path / name)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("readme.txt", "not weights")
    with pytest.raises(UserError):
        weight_files.read(tmp_path / name)


@pytest.mark.parametrize("seed", range(200))
def test_mutants_are_read_or_refused(tmp_path, net, seed):
    """Bytes flipped, header included: tensors or one line, never a crash."""
    generator = torch.Generator().manual_seed(seed)
    path = tmp_path / ("x.safetensors" if seed % 2 else "x.pt")
    if seed % 2:
        weight_files.save(path, net.state_dict(), {})
    else:
        torch.save(net.state_dict(), path)
    content = bytearray(path.read_bytes())
    for _ in range(4):
        at = int(torch.randint(0, len(content), (1,), generator=generator))
        content[at] = int(torch.randint(0, 256, (1,), generator=generator))
    path.write_bytes(content)
    try:
        assert all(isinstance(v, torch.Tensor) for v in weight_files.read(path).values())
    except UserError as refused:
        assert "\n" not in str(refused)  # noqa: PT017


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_torchscript_program_is_refused_with_another_way(tmp_path, net):
    torch.jit.save(torch.jit.trace(net.eval(), torch.zeros(2, 4)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(UserError, match=r"TorchScript.*model\.pretrained=openai"):
        weight_files.read(tmp_path / "ViT-B-32.pt")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {f"module._orig_mod.{k}": v for k, v in s.items()}},
    ],
    ids=["plain", "state_dict", "model", "data parallel", "compiled"],
)
def test_wrappers_and_prefixes_come_off(tmp_path, net, wrap):
    torch.save(wrap(net.state_dict()), tmp_path / "x.pt")
    state = weight_files.read(tmp_path / "x.pt")
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {3: torch.zeros(2)}, "hello"])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"holds (no state dict|more than tensors)"):
        weight_files.read(tmp_path / "x.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path, net, value):
    with torch.no_grad():
        net[2].bias[1] = value
    weight_files.save(tmp_path / "x.safetensors", net.state_dict(), {})
    with pytest.raises(UserError, match=r"non-finite numbers, in 2\.bias"):
        weight_files.read(tmp_path / "x.safetensors")


def test_what_is_saved_is_read_back_with_what_it_says(tmp_path, net):
    tied = {**net.state_dict(), "tied": net.state_dict()["0.weight"].t()}
    weight_files.save(tmp_path / "x.safetensors", tied, {"activation": "gelu"})
    assert weight_files.metadata(tmp_path / "x.safetensors") == {"activation": "gelu"}
    state = weight_files.read(tmp_path / "x.safetensors")
    assert torch.equal(state["tied"], net.state_dict()["0.weight"].t())
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_weights_load_whole_or_not_at_all(net):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    other = {**{k: v + 1 for k, v in before.items()}, "0.weight": torch.zeros(8, 5)}
    del other["2.bias"]
    other["3.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as refused:
        weight_files.load_into(net, other, source="x.pt", target="net")
    assert str(refused.value) == (
        "x.pt does not fit net: 1 missing (2.bias), 1 unexpected (3.weight), "
        "1 of another shape (0.weight). Use the model.arch that it was saved from."
    )
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_head_of_other_classes_is_called_one(net):
    other = {**net.state_dict(), "2.weight": torch.zeros(102, 8), "2.bias": torch.zeros(102)}
    with pytest.raises(UserError, match="its head is of 102 classes, not 3"):
        weight_files.load_into(net, other, source="x.pt", target="net")


def test_what_is_no_layer_is_not_called_a_head():
    net = torch.nn.Module()
    net.positional_embedding = torch.nn.Parameter(torch.zeros(10, 3))
    other = {"positional_embedding": torch.zeros(5, 3)}
    with pytest.raises(UserError, match=r"1 of another shape \(positional_embedding\)"):
        weight_files.load_into(net, other, source="a", target="b")


def test_half_precision_weights_load_into_full_precision(net):
    half = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    weight_files.load_into(net, half, source="x.pt", target="net")
    assert net[0].weight.dtype == torch.float32


def test_old_checkpoints_need_no_batch_count(net):
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    weight_files.load_into(net, state, source="x.pt", target="net")
