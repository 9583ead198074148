"""What a training step costs on a CPU with glibc's allocator as it is, and with its memory kept.

Each measurement has a process of its own, since what the allocator was told cannot be taken back;
the two sides take turns.
"""

import resource
import statistics
import subprocess
import sys

import pandas as pd

TITLE = "CPU seconds of a training step (batch 64 or 32, one thread), glibc's memory kept"
MODELS = {
    "efficientnet_lite0, 160 px": ("efficientnet_lite0", 160, 64),
    "resnet50, 224 px": ("resnet50", 224, 32),
    "ViT-B-32, 224 px": ("vit_base_patch32_224", 224, 32),
}
ROUNDS, STEPS = 3, 2


def step_cost(arch, size, batch, kept):
    """CPU seconds of a step, and the peak of memory in MB: in this process."""
    import timm
    import torch

    from clipbench.core import allocator

    assert not kept or allocator.keep()
    torch.set_num_threads(1)
    model = timm.create_model(arch, num_classes=102).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 102, (batch,))

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(STEPS):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds / STEPS, after.ru_maxrss / 1024


def _apart(arch, size, batch, kept):
    code = f"from {__name__} import step_cost; print(*step_cost({arch!r}, {size}, {batch}, {kept}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak)


def run():
    rows = []
    for name, (arch, size, batch) in MODELS.items():
        measured = {False: [], True: []}
        for _ in range(ROUNDS):
            for kept in measured:
                measured[kept].append(_apart(arch, size, batch, kept))
        plain, kept = (
            [statistics.median(column) for column in zip(*measured[side], strict=True)]
            for side in (False, True)
        )
        rows.append(
            {
                "step": name,
                "as it is, s": f"{plain[0]:.2f}",
                "kept, s": f"{kept[0]:.2f}",
                "ratio": f"{kept[0] / plain[0]:.2f}",
                "peak, MB": f"{plain[1]:.0f}",
                "kept, peak, MB": f"{kept[1]:.0f}",
            }
        )
    return pd.DataFrame(rows)
