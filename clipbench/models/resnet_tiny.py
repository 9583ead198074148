"""The embedded ResNet: timm's, one basic block a stage and narrow, for images of 64 pixels."""

from collections.abc import Mapping

from clipbench.models.timm import Timm, TimmOption
from clipbench.transforms.preprocess import Preprocess


class ResNetTiny(Timm):
    """A timm ResNet that takes its images whole; see :class:`Timm` for the arguments.

    timm's ResNets resize to more than they crop. At 64 pixels that would blur fills whose pattern
    repeats every seven, so here the pixels arrive as they were drawn.
    """

    def __init__(
        self,
        *,
        arch: str,
        pretrained: str | None = None,
        image_size: int = 64,
        options: Mapping[str, TimmOption] | None = None,
    ) -> None:
        super().__init__(arch=arch, pretrained=pretrained, image_size=image_size, options=options)
        self.preprocess = Preprocess(
            size=image_size, resize=image_size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
        )
