"""The embedded ResNet: small, whole images, and with its weights it tells seen pairs apart."""

import numpy as np
import torch
from PIL import Image

from clipbench.core.config import instantiate
from clipbench.transforms.preprocess import View
from tests.conftest import composed


def tower(*overrides):
    return instantiate.build(composed("model=resnet_tiny", *overrides)["model"]).eval()


def test_it_is_small_and_has_four_blocks_to_freeze():
    model = tower("model.pretrained=null")
    assert sum(p.numel() for p in model.parameters()) < 1e6
    assert [bool(layer) for layer in model.layers()] == [True] * 5 + [False]
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, model.feature_dim)


def test_images_arrive_as_they_were_drawn():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = View(tower("model.pretrained=null").preprocess)(Image.fromarray(pixels))
    back = (seen * 0.25 + 0.5) * 255
    assert np.allclose(back.permute(1, 2, 0).numpy(), pixels, atol=1e-3)


def test_its_features_tell_unseen_pairs_apart():
    """A nearest class mean over ten images a class: the features carry fill and shape."""
    model = tower()
    counts = "dataset.counts={train: 10, val: 10, test: 1, test_ood: 1}"
    data = instantiate.build(composed("dataset=shapes", counts)["dataset"])
    data.prepare(seed=0)
    view = View(model.preprocess)

    def encode(split):
        with torch.inference_mode():
            return model(torch.stack([view(split.image(i)) for i in range(len(split))]))

    train, val = data.splits["train"], data.splits["val"]
    features, labels = encode(train), torch.from_numpy(train.labels)
    means = torch.stack([features[labels == k].mean(0) for k in range(len(data.classes))])
    nearest = torch.cdist(encode(val), means).argmin(1)
    assert (nearest == torch.from_numpy(val.labels)).double().mean() > 0.6
