"""What a training step costs when its first blocks are frozen: CLIP ViT-B/32 in bf16 on a CPU.

One process, one thread, CPU time; the variants take turns, so that a busy machine slows all alike.
"""

import statistics
import time

import pandas as pd
import torch

from clipbench.models.base import freeze_statistics
from clipbench.models.clip import CLIP
from clipbench.strategies.base import Task
from clipbench.strategies.finetune import Finetune

TITLE = "Frozen prefix: a training step of CLIP ViT-B/32, batch 32, bf16, CPU seconds on one core"
ROUNDS, BATCH, CLASSES = 3, 32, 100
GOAL = (11, 1 / 3)  # blocks frozen, and the share of a full step that it may cost at most


def variant(depth, *, laid_out=True):
    """A classifier frozen that deep, and its optimiser."""
    torch.manual_seed(0)
    tower = CLIP(arch="ViT-B-32-quickgelu")
    if not laid_out:  # as open_clip has it
        for part in tower.modules():
            part._forward_pre_hooks.clear()
    strategy = Finetune(freeze_depth=depth, head="random")
    classifier = strategy.prepare(tower, Task([str(i) for i in range(CLASSES)], []))
    trained = [p for p in classifier.parameters() if p.requires_grad]
    freeze_statistics(classifier.train())
    return classifier, torch.optim.AdamW(trained, lr=1e-5)


def step(classifier, optimizer, images, labels):
    """CPU seconds of one step."""
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16):
        loss = Finetune().loss(classifier, {"image": images, "label": labels}, smoothing=0, step=0)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.process_time() - start


def run():
    """A row for each depth: seconds, and their share of a full step."""
    torch.set_num_threads(1)
    variants = {f"{d} of 12": variant(d) for d in (0, 6, 11, 12)}
    variants["11 of 12, open_clip's attention"] = variant(11, laid_out=False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 224, 224, generator=generator)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    seconds = {name: [] for name in variants}
    for _ in range(ROUNDS + 1):  # the first is for warming up
        for name, (classifier, optimizer) in variants.items():
            seconds[name].append(step(classifier, optimizer, images, labels))
    median = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    depth, share = GOAL
    return pd.DataFrame(
        {
            "blocks frozen": name,
            "seconds": f"{taken:.2f}",
            "of a full step": f"{taken / median['0 of 12']:.2f}",
            "goal": f"{share:.2f}" if name == f"{depth} of 12" else "",
        }
        for name, taken in median.items()
    )


def main():
    """Print the table."""
    print(run().to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
