"""Layers from input to output for any network, by timm's tables or a list of blocks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

Groups = list[list[nn.Parameter]]
Spec = str | Sequence[tuple[str, tuple[int, ...] | None]]  # timm's pattern of a group of names
# For the few timm families that have no table: stages of blocks, or plain stages.
_USUAL: dict[str, Spec] = {
    "stem": r"^(?:stem|patch_embed|pos_embed|cls_token|conv1|bn1)",
    "blocks": [
        (r"^\w+\.(\d+)\.(?:downsample|pool)", (0,)),
        (r"^\w+\.(\d+)\.\w+\.(\d+)", None),
        (r"^\w+\.(\d+)", None),
    ],
}
_MERGED_INTO_LAST_BLOCK = 99999


def by_blocks(
    parameters: Iterable[nn.Parameter],
    stem: Sequence[nn.Module | nn.Parameter],
    blocks: Iterable[nn.Module],
) -> Groups:
    """Return the stem, a group for each block, and all that remains as the tail.

    Args:
        parameters: of the network; each is in exactly one group.
        stem: modules and single parameters before the first block.
        blocks: in the order in which an image passes them.
    """
    first = [
        p for part in stem for p in (part.parameters() if isinstance(part, nn.Module) else [part])
    ]
    groups = [first, *(list(block.parameters()) for block in blocks)]
    taken = {id(p) for group in groups for p in group}
    return [*groups, [p for p in parameters if id(p) not in taken]]


def of_text(text: Any, parameters: Sequence[nn.Parameter]) -> Groups:
    """Return the groups of an open_clip text tower: embeddings, blocks, norm and projection.

    A tower from the hub, which open_clip only wraps, has no named blocks: it is one group.

    Args:
        text: the tower, or the CLIP whose attributes are its parts.
        parameters: of the tower.
    """
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    if blocks is None:
        return [list(parameters), []]
    added = [text.positional_embedding, getattr(text, "cls_emb", None)]
    stem = [text.token_embedding, *(p for p in added if p is not None)]
    return by_blocks(parameters, stem, blocks)


def by_timm(module: nn.Module) -> Groups:
    """Return the groups of a timm network without classifier, by its ``group_matcher``.

    timm counts what follows the last block (norm, conv_head) as part of that block; here it is the
    tail, so that freezing all blocks leaves it trainable.
    """
    group_matcher: Any = getattr(module, "group_matcher", None)
    matcher = group_matcher(coarse=False) if group_matcher else _USUAL
    if isinstance(matcher, dict):
        matcher = {group: _without_merges(spec) for group, spec in matcher.items()}
    names = list(group_parameters(module, matcher).values())
    # timm puts what no pattern knows last; a matcher that is a function knows everything.
    unknown = isinstance(matcher, dict) and not _known(names[-1][0], matcher)
    groups = [[module.get_parameter(name) for name in group] for group in names]
    return groups if unknown else [*groups, []]


def _without_merges(spec: Spec) -> Spec:
    if isinstance(spec, str):
        return spec
    return [s for s in spec if not (s[1] and s[1][-1] == _MERGED_INTO_LAST_BLOCK)]


def _known(name: str, matcher: Mapping[str, Spec]) -> bool:
    specs = [[(s, None)] if isinstance(s, str) else s for s in matcher.values()]
    return any(re.match(pattern, name) for spec in specs for pattern, _ in spec)
