"""Layers from input to output for any network, as timm's own tables or a list of blocks tell."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from timm.models import group_parameters
from torch import nn

Groups = list[list[nn.Parameter]]
# For the few timm families that have no table: stages of blocks, or plain stages.
_USUAL = {
    "stem": r"^(?:stem|patch_embed|pos_embed|cls_token|conv1|bn1)",
    "blocks": [
        (r"^\w+\.(\d+)\.(?:downsample|pool)", (0,)),
        (r"^\w+\.(\d+)\.\w+\.(\d+)", None),
        (r"^\w+\.(\d+)", None),
    ],
}
_MERGED_INTO_LAST_BLOCK = 99999


def by_blocks(
    own: Iterable[nn.Parameter],
    stem: Sequence[nn.Module | nn.Parameter],
    blocks: Iterable[nn.Module],
) -> Groups:
    """The stem, one group for each block, and all that is left over as the tail.

    Args:
        own: all parameters of the network; each is in exactly one group.
        stem: modules and single parameters before the first block.
        blocks: in the order in which a picture passes them.
    """
    first = [
        p for part in stem for p in (part.parameters() if isinstance(part, nn.Module) else [part])
    ]
    groups = [first, *(list(block.parameters()) for block in blocks)]
    taken = {id(p) for group in groups for p in group}
    return [*groups, [p for p in own if id(p) not in taken]]


def of_text(text: Any, own: Sequence[nn.Parameter]) -> Groups:
    """Groups of an open_clip text tower: embeddings, each block, final norm and projection.

    A tower from the hub, which open_clip only wraps, has no blocks that it names: one group.

    Args:
        text: the tower, or the CLIP whose attributes are its parts.
        own: its parameters.
    """
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    if blocks is None:
        return [list(own), []]
    added = [text.positional_embedding, getattr(text, "cls_emb", None)]
    return by_blocks(own, [text.token_embedding, *(p for p in added if p is not None)], blocks)


def by_timm(module: nn.Module) -> Groups:
    """Groups of a timm network without classifier, by the ``group_matcher`` it carries.

    timm counts what follows the last block (norm, conv_head) as part of that block; here it is the
    tail, so that freezing all blocks leaves it trainable.
    """
    ask: Any = getattr(module, "group_matcher", None)
    matcher = ask(coarse=False) if ask else _USUAL
    if isinstance(matcher, dict):
        matcher = {group: _without_merges(spec) for group, spec in matcher.items()}
    names = list(group_parameters(module, matcher).values())
    # timm puts what no pattern knows last; a matcher that is a function knows everything.
    unknown = isinstance(matcher, dict) and not _known(names[-1][0], matcher)
    groups = [[module.get_parameter(name) for name in group] for group in names]
    return groups if unknown else [*groups, []]


def _without_merges(spec: Any) -> Any:
    if isinstance(spec, str):
        return spec
    return [s for s in spec if not (s[1] and s[1][-1] == _MERGED_INTO_LAST_BLOCK)]


def _known(name: str, matcher: dict[str, Any]) -> bool:
    specs = [[(s, None)] if isinstance(s, str) else s for s in matcher.values()]
    return any(re.match(pattern, name) for spec in specs for pattern, _ in spec)
