"""Which weights an open_clip architecture may be given, and where they are.

The same tensors fit a GELU and a QuickGELU network; under the wrong one they run, and lose several
points in silence (open_clip #771, #915). So the two must agree before anything is loaded.
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


# What open_clip, which is untyped, states of an architecture, a tag or a preprocessing.
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Where a CLIP comes from."""

    name: str  # of the architecture in open_clip; local-dir:... for one from the hub
    preprocess: Config = field(default_factory=dict)  # of these weights, as far as it is known
    file: Path | None = None  # None for random weights
    warnings: tuple[str, ...] = ()  # what is doubtful about the weights


def activation(config: Config) -> str:
    """Return ``quickgelu`` or ``gelu``."""
    return "quickgelu" if config.get("quick_gelu") else "gelu"


def find(arch: str, pretrained: str | None) -> Source:
    """Resolve an architecture and its weights, fetching these if needed.

    Raises:
        UserError: for an unknown name, an activation that disagrees, or weights that cannot be
            fetched.
    """
    if pretrained is not None and pretrained.startswith(hub.HUB):
        return _from_hub(arch, pretrained)
    config = _known(arch)
    if pretrained is None:
        return Source(arch)
    file = hub.local(pretrained)
    return _from_tag(arch, pretrained) if file is None else _from_file(arch, file, config)


def pretrained_config(arch: str, tag: str) -> Config:
    """Return open_clip's entry of a tag: where its weights are, how it prepares images.

    Raises:
        UserError: if the arch has no such tag, or computes another activation than the tag's.
    """
    config: Config = open_clip.get_pretrained_cfg(arch, tag)
    # Native QuickGELU archs list only the tags that were trained so; the others are their twin's.
    twin = arch.removesuffix(_QUICK) if arch.endswith(_QUICK) else arch + _QUICK
    config = config or open_clip.get_pretrained_cfg(twin, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        near = difflib.get_close_matches(tag, tags, 3, 0.4) or tags[:5]
        raise UserError(
            f"model.pretrained={tag}: neither a file nor a tag of {arch}. Similar tags: "
            f"{', '.join(near) or 'none'}."
        )
    # Without a twin, the arch is the only one that the tag can have been made with.
    if activation(config) != activation(_known(arch)) and twin in open_clip.list_models():
        raise UserError(
            f"model.pretrained={tag}: trained with {activation(config)} and {arch} computes the "
            f"other. Use model.arch={twin}"
        )
    return config


def looks_like(state: Mapping[str, Tensor]) -> str | None:
    """Return the open_clip architectures whose towers have the sizes of these tensors."""
    needed = {"visual.conv1.weight", "visual.proj", "token_embedding.weight", "text_projection"}
    if not needed <= state.keys():
        return None
    conv, text = state["visual.conv1.weight"], state["token_embedding.weight"]
    blocks = {k.split(".")[3] for k in state if k.startswith("visual.transformer.resblocks.")}
    sizes = {"width": conv.shape[0], "patch_size": conv.shape[-1], "layers": len(blocks)}
    names = []
    for name in open_clip.list_models():
        config: Config = open_clip.get_model_config(name)
        vision, words = config["vision_cfg"], config["text_cfg"]
        same = sizes.items() <= vision.items() and words.get("width") == text.shape[1]
        if same and config["embed_dim"] == state["text_projection"].shape[-1]:
            names.append(name)
    return " or ".join(names[:3]) or None


def _known(arch: str) -> Config:
    config: Config | None = open_clip.get_model_config(arch) if ":" not in arch else None
    if config is None:
        near = difflib.get_close_matches(arch, open_clip.list_models(), 3)
        raise UserError(
            f"model.arch={arch}: unknown to open_clip. Similar names: {', '.join(near) or 'none'}."
        )
    return config


def _from_tag(arch: str, tag: str) -> Source:
    config = pretrained_config(arch, tag)
    repo, _, filename = config["hf_hub"].rpartition("/")
    if not repo:
        return Source(arch, config, hub.from_url(config["url"]))
    names = [filename] if filename else _FILES
    return Source(arch, config, hub.from_hub(repo, names))


def _from_file(arch: str, file: Path, config: Config) -> Source:
    about = weight_files.metadata(file)
    trained_with = about.get("activation")
    if trained_with is None:
        warning = (
            f"{file} does not say which activation it was trained with; {arch} computes "
            f"{activation(config)}, and the other would cost several points"
        )
        return Source(arch, file=file, warnings=(warning,))
    if trained_with != activation(config):
        raise UserError(
            f"model.pretrained={file}: trained with {trained_with} and {arch} computes "
            f"{activation(config)}. Use model.arch={about.get('arch', 'the arch it is of')}"
        )
    return Source(arch, file=file)


def _from_hub(arch: str, pretrained: str) -> Source:
    repo = pretrained.removeprefix(hub.HUB)
    path = hub.from_hub(repo, ["open_clip_config.json"])
    described = hub.description(path, "model_cfg")
    config, preprocess = described["model_cfg"], described.get("preprocess_cfg", {})
    if arch == pretrained:  # an architecture that only this repository knows
        return Source(f"local-dir:{path.parent}", preprocess, hub.from_hub(repo, _FILES))
    if not _same(_known(arch), config):
        equal = [n for n in open_clip.list_models() if _same(open_clip.get_model_config(n), config)]
        raise UserError(
            f"model.pretrained={pretrained}: not of {arch}. "
            f"Use model.arch={equal[0] if equal else pretrained}"
        )
    return Source(arch, preprocess, hub.from_hub(repo, _FILES))


def _same(a: Config, b: Config) -> bool:
    parts = ("embed_dim", "vision_cfg", "text_cfg")
    return activation(a) == activation(b) and all(a.get(part) == b.get(part) for part in parts)
