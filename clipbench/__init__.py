"""clipbench: fine-tune CLIP, or the ResNet we know?"""

__version__ = "0.1.0"
