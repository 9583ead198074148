"""Weight files: read without executing anything, written whole, loaded only where they fit."""

import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipbench.core import files
from clipbench.core.errors import UserError

State = dict[str, Tensor]
_ENVIRONMENT = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, a wrapper


def read(path: Path) -> State:
    """Read the tensors of a .safetensors file or of a PyTorch checkpoint.

    Wrappers (``state_dict``, ``model``) and prefixes (``module.``, ``model.``) are taken off.

    Args:
        path: of any suffix but .safetensors, it is read with ``weights_only=True``, whatever the
            environment says.

    Raises:
        UserError: if it is truncated, not a weight file, or holds code, objects or non-finite
            numbers.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except UserError:
        raise
    except Exception as failure:  # a hostile file can raise anything
        reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:100]
        raise UserError(
            f"{path} is cut off or not a weight file ({reason}). Download it again."
        ) from None
    state = _unwrapped(content, path)
    for name, tensor in state.items():
        # 8-bit floats know no isfinite().
        numbers = tensor.float() if tensor.itemsize == 1 else tensor
        if tensor.is_floating_point() and not bool(torch.isfinite(numbers).all()):
            raise UserError(
                f"{path} holds non-finite numbers, in {name}. Choose another checkpoint."
            )
    return state


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a .safetensors file; empty for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception:  # read() says what is wrong with it
        return {}


def save(path: Path, state: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write a .safetensors file; it has its name only once it is whole.

    Args:
        path: the file.
        state: tensors on any device; those that share memory are written separately.
        about: the file's metadata, as ``ImageTower.metadata()`` returns it.
    """
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    with files.replacing(path) as file:
        save_file(whole, file.name, dict(about))


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    target: str,
    guess: Callable[[Mapping[str, Tensor]], str | None] = lambda _: None,
) -> None:
    """Load weights that fit name by name and shape by shape, or none at all.

    Args:
        module: is changed only if everything fits.
        state: its tensors are cast to the module's precision.
        source: the file, for the message.
        target: the architecture, for the message.
        guess: says which architecture the weights are of, if it can.

    Raises:
        UserError: naming a few of the tensors that do not fit.
    """
    shapes = {k: v.shape for k, v in module.state_dict().items()}
    # Checkpoints older than torch 0.4.1 count no batches; nothing but cumulative averages needs it.
    missing = [k for k in shapes.keys() - state.keys() if not k.endswith("num_batches_tracked")]
    unexpected = [*(state.keys() - shapes.keys())]
    reshaped = [k for k in shapes.keys() & state.keys() if shapes[k] != state[k].shape]
    if missing or unexpected or reshaped:
        named = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
        parts = [f"{len(v)} {k} ({_few(v)})" for k, v in named.items() if v]
        if not missing and not unexpected and (classes := _other_classes(shapes, state, reshaped)):
            parts = [f"its head is of {classes[0]} classes, not {classes[1]}"]
        hint = guess(state)
        fix = f"It looks like {hint}." if hint else "Use the model.arch that it was saved from."
        raise UserError(f"{source} does not fit {target}: {', '.join(parts)}. {fix}")
    module.load_state_dict(dict(state), strict=False)


def _unpickle(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            script = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if script:
            raise UserError(
                f"{path} is a TorchScript program, which would have to be run. For OpenAI's CLIP "
                "use model.pretrained=openai, else save its tensors as .safetensors."
            )
    try:
        with _as_code_says(), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as failure:
        if "weights_only" not in str(failure):
            raise
        match = re.search(r"GLOBAL ([\w.]+)", str(failure))
        if match is None:  # torch's message advises to load it without protection
            raise ValueError("it is not a pickle of tensors") from None
        raise UserError(
            f"{path} holds code or objects ({match[1]}), not weights alone, and was not loaded. "
            "Save its tensors as .safetensors."
        ) from None


@contextmanager
def _as_code_says() -> Iterator[None]:
    """Hide the variables by which torch lets the environment decide what a file may execute."""
    hidden = {name: os.environ.pop(name) for name in _ENVIRONMENT if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _unwrapped(content: Any, path: Path) -> State:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no state dict. Use a file of named tensors.")
    wrong = [k for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if wrong:
        raise UserError(
            f"{path} holds more than tensors ({_few(wrong)}). Save its state_dict alone."
        )
    state = dict(content)
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def _other_classes(
    shapes: Mapping[str, torch.Size], state: Mapping[str, Tensor], reshaped: list[str]
) -> tuple[int, int] | None:
    """Return the classes of the file and of the module, if the head alone differs in them."""
    named = [name.rpartition(".") for name in reshaped]
    if len({layer for layer, _, _ in named}) != 1 or {n for *_, n in named} - {"weight", "bias"}:
        return None
    pairs = [(tuple(state[name].shape), tuple(shapes[name])) for name in reshaped]
    if any(theirs[1:] != ours[1:] for theirs, ours in pairs):
        return None
    return int(pairs[0][0][0]), int(pairs[0][1][0])


def _few(names: list[Any]) -> str:
    shown = ", ".join(str(name) for name in sorted(names, key=str)[:3])
    return shown + (", ..." if len(names) > 3 else "")
