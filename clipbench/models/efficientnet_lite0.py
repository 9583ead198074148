"""EfficientNet-Lite0 with the ImageNet weights that come as a pip package.

The package holds TensorFlow's weights under a PyTorch port's names; timm's
``tf_efficientnet_lite0`` computes what they were trained for. Measured on 200 photos (Flickr8k,
COCO), as the distance of activations from the checkpoint's running statistics, and on 160 photos
whose captions say "dog":

| padding, eps | mean, std | distance | a dog's class | mean probability |
|---|---|---|---|---|
| TensorFlow's, 1e-3 (this) | 0.5, 0.5 (timm's own for this arch) | 0.112 | 82 % | 0.367 |
| symmetric, 1e-5 (``efficientnet_lite0``) | 0.5, 0.5 | 0.142 | 81 % | 0.329 |
| TensorFlow's, 1e-3 | ImageNet's | 0.236 | 79 % | 0.306 |
| symmetric, 1e-5 | ImageNet's | 0.257 | 78 % | 0.272 |

Behind the first strided depthwise convolution alone, padding makes 0.023 of 0.061.
"""

from torch import Tensor

from clipbench.models.timm import Timm

_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks a stage, as in the paper's Table 1
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_BIASED = {"_fc": ("weight", "bias")}
# In the first stage nothing is expanded, so there the depthwise convolution comes first.
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def names() -> dict[str, str]:
    """Return timm's name of each tensor by the package's."""
    places = [f"{stage}.{i}" for stage, count in enumerate(_REPEATS) for i in range(count)]
    layers = _ENDS | {
        f"_blocks.{flat}.{theirs}": f"blocks.{place}.{ours}"
        for flat, place in enumerate(places)
        for theirs, ours in (_OTHERS if flat else _FIRST).items()
    }
    return {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in layers.items()
        for kind in (_NORM if "bn" in theirs else _BIASED.get(theirs, ("weight",)))
    }


class EfficientNetLite0(Timm):
    """timm's ``tf_efficientnet_lite0``; see :class:`Timm` for the arguments."""

    extra = "efficientnet_lite0"

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the package's tensors under timm's names, and others unchanged."""
        if "_conv_stem.weight" not in state:
            return state
        ours = names()
        return {ours.get(name, name): tensor for name, tensor in state.items()}
