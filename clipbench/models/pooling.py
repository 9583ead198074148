"""FT-CLIP's pooling of a CLIP's ViT: the mean of its patches, under a new norm."""

from typing import Any

from torch import nn

from clipbench.core.errors import UserError

HEAD_STD, HEAD_SCALE = 0.02, 0.001  # models/finetune_clip.py: init_scale


def pool_patches(visual: Any, arch: str) -> nn.Module:
    """Make an open_clip ViT return the mean of its patch tokens, each normalised anew.

    The class token is not read, and the projection into the space of texts is left out. The new
    norm comes before the mean, not after it (FT-CLIP, models/finetune_clip.py).

    Args:
        visual: an image tower; changed in place.
        arch: its name, for messages.

    Raises:
        UserError: for a tower that is not one of open_clip's own ViTs.
    """
    if not hasattr(visual, "class_embedding") or visual.attn_pool is not None:
        raise UserError(
            f"model.pool=mean: for the plain ViTs of open_clip alone, such as clip_vitb32; {arch} "
            "has a pooling of another kind. Use model.pool=null."
        )
    norm = type(visual.ln_post)
    visual.ln_post = norm(visual.ln_post.normalized_shape)
    visual.proj = None
    visual.pool_type, visual.final_ln_after_pool = "avg", False
    tower: nn.Module = visual
    return tower


def small_head(dim: int, classes: int) -> nn.Linear:
    """Return FT-CLIP's new head: normal of 0.02, truncated at +-2, then times 0.001."""
    head = nn.Linear(dim, classes)
    nn.init.trunc_normal_(head.weight, std=HEAD_STD)
    for parameter in head.parameters():
        parameter.data.mul_(HEAD_SCALE)
    return head
