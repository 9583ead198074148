"""Which weights an open_clip architecture may be given, and where they are.

The same tensors fit a GELU and a QuickGELU network; under the wrong one they run, and lose several
points without a word (open_clip #771, #915). So the two must agree before anything is loaded.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from clipbench.core.errors import UserError
from clipbench.models import hub, weight_files

_QUICK = "-quickgelu"
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Source:
    """Where a CLIP comes from.

    Attributes:
        name: what open_clip calls the architecture; ``local-dir:...`` for one from the hub.
        preprocess: open_clip's preprocessing of these weights, as far as it is known.
        file: the weights, or None for random ones.
        warnings: what is doubtful about the weights.
    """

    name: str
    preprocess: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    warnings: tuple[str, ...] = ()


def activation(config: Mapping[str, Any]) -> str:
    """``quickgelu`` or ``gelu``, of an open_clip model config or pretrained config."""
    return "quickgelu" if config.get("quick_gelu") else "gelu"


def find(arch: str, pretrained: str | None) -> Source:
    """Resolve what a config says, and fetch what it takes.

    Raises:
        UserError: for an unknown name, an activation that disagrees, or weights that are not to be
            had.
    """
    if pretrained is not None and pretrained.startswith(hub.HUB):
        return _from_hub(arch, pretrained)
    config = _known(arch)
    if pretrained is None:
        return Source(arch)
    file = hub.local(pretrained)
    return _from_tag(arch, pretrained) if file is None else _from_file(arch, file, config)


def pretrained_config(arch: str, tag: str) -> dict[str, Any]:
    """open_clip's record of a tag: where its weights are, how pictures are prepared for them.

    Raises:
        UserError: if the arch has no such tag, or computes another activation than the tag's.
    """
    told: dict[str, Any] = open_clip.get_pretrained_cfg(arch, tag)
    # Native QuickGELU archs list only the tags that were trained so; the others are their twin's.
    twin = arch.removesuffix(_QUICK) if arch.endswith(_QUICK) else arch + _QUICK
    told = told or open_clip.get_pretrained_cfg(twin, tag)
    if not told:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        near = difflib.get_close_matches(tag, tags, 3, 0.4) or tags[:5]
        raise UserError(
            f"model.pretrained={tag} is neither a file nor a tag of {arch}; near it: "
            f"{', '.join(near) or 'nothing'}"
        )
    # Without a twin, the arch is the only one that the tag can have been made with.
    if activation(told) != activation(_known(arch)) and twin in open_clip.list_models():
        raise UserError(
            f"{tag} was trained with {activation(told)}, and {arch} computes the other; "
            f"use model.arch={twin}"
        )
    return told


def looks_like(state: Mapping[str, Tensor]) -> str | None:
    """The open_clip architectures whose towers have the sizes of these tensors."""
    needed = {"visual.conv1.weight", "visual.proj", "token_embedding.weight", "text_projection"}
    if not needed <= state.keys():
        return None
    conv, text = state["visual.conv1.weight"], state["token_embedding.weight"]
    blocks = {k.split(".")[3] for k in state if k.startswith("visual.transformer.resblocks.")}
    sizes = {"width": conv.shape[0], "patch_size": conv.shape[-1], "layers": len(blocks)}
    found = []
    for name in open_clip.list_models():
        config: dict[str, Any] = open_clip.get_model_config(name) or {}
        vision, words = config["vision_cfg"], config["text_cfg"]
        same = sizes.items() <= vision.items() and words.get("width") == text.shape[1]
        if same and config["embed_dim"] == state["text_projection"].shape[-1]:
            found.append(name)
    return " or ".join(found[:3]) or None


def _known(arch: str) -> dict[str, Any]:
    config: dict[str, Any] | None = None
    if ":" not in arch:
        config = open_clip.get_model_config(arch)
    if config is None:
        near = difflib.get_close_matches(arch, open_clip.list_models(), 3)
        raise UserError(f"open_clip knows no arch {arch}; near it: {', '.join(near) or 'nothing'}")
    return config


def _from_tag(arch: str, tag: str) -> Source:
    told = pretrained_config(arch, tag)
    repo, _, filename = told["hf_hub"].rpartition("/")
    if not repo:
        return Source(arch, told, hub.from_url(told["url"]))
    names = [filename] if filename else _FILES
    return Source(arch, told, hub.from_hub(repo, names))


def _from_file(arch: str, file: Path, config: Mapping[str, Any]) -> Source:
    about = weight_files.metadata(file)
    told = about.get("activation")
    if told is None:
        silent = (
            f"{file} does not say which activation it was trained with; {arch} computes "
            f"{activation(config)}, and the other would cost several points"
        )
        return Source(arch, file=file, warnings=(silent,))
    if told != activation(config):
        raise UserError(
            f"{file} was trained with {told} and {arch} computes {activation(config)}; "
            f"use model.arch={about.get('arch', 'the one it was saved from')}"
        )
    return Source(arch, file=file)


def _from_hub(arch: str, pretrained: str) -> Source:
    repo = pretrained.removeprefix(hub.HUB)
    path = hub.from_hub(repo, ["open_clip_config.json"])
    told = hub.description(path, "model_cfg")
    config, preprocess = told["model_cfg"], told.get("preprocess_cfg", {})
    if arch == pretrained:  # an architecture that only this repository knows
        return Source(f"local-dir:{path.parent}", preprocess, hub.from_hub(repo, _FILES))
    if not _same(_known(arch), config):
        equal = [n for n in open_clip.list_models() if _same(open_clip.get_model_config(n), config)]
        raise UserError(
            f"{pretrained} is no {arch}; use model.arch={equal[0] if equal else pretrained}"
        )
    return Source(arch, preprocess, hub.from_hub(repo, _FILES))


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    parts = ("embed_dim", "vision_cfg", "text_cfg")
    return activation(one) == activation(other) and all(one.get(p) == other.get(p) for p in parts)
