"""Recall@{1, 5, 10} both ways, beside clip-benchmark's own metric on the same features.

One process; the seconds of the comparison are CPU time on one thread, those of the large set are
by the clock on two. Memory is the most that was held above the features.
"""

import re
import statistics
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

from clipbench.metrics import retrieval

TITLE = "Retrieval: recall@1, 5, 10 both ways, 512-d features, five captions a picture"
SMALL, LARGE = (5_000, 25_000), (31_000, 155_000)
ROUNDS = 3
GOALS = {"ratio": 15, "mb": 200, "seconds": 100}


def features(pictures, texts):
    """Pictures and captions about as far apart as a good CLIP has them."""
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(pictures, 512, generator=generator), dim=-1)
    owner = torch.arange(pictures).repeat_interleave(texts // pictures)
    text = torch.randn(texts, 512, generator=generator).mul_(0.28).add_(image[owner])
    return image, F.normalize(text, dim=-1, out=text), owner


def clip_benchmark(image, text, owner):
    """As its ``evaluate`` goes on once it has the features of batches of 64."""
    scores = text @ image.t()
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), owner] = True
    ways = {"image": (scores, positive), "text": (scores.T, positive.T)}
    return {
        f"{name}_recall@{k}": (batchify(recall_at_k, *pair, 64, "cpu", k=k) > 0).float().mean()
        for name, pair in ways.items()
        for k in (1, 5, 10)
    }


def peak():
    """The most memory of this process since it was last forgotten, in MB."""
    told = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(told[1]) / 1024


def measured(metric, data, clock=time.process_time):
    """Seconds, MB above what was held before, and the values."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = peak(), clock()
    values = metric(*data)
    return clock() - start, peak() - before, values


def row(size, metric, seconds, mb, ratio="", goal=""):
    """A line of the table."""
    pictures, texts = size
    told = {"pictures": f"{pictures:,}", "captions": f"{texts:,}", "metric": metric}
    return {**told, "seconds": f"{seconds:.2f}", "ratio": ratio, "MB": f"{mb:,.0f}", "goal": goal}


def run():
    """The table, after a check that both give the same numbers."""
    torch.set_num_threads(1)
    data = features(*SMALL)
    measured(retrieval.recall, data)  # for warming up
    ours = [measured(retrieval.recall, data) for _ in range(ROUNDS)]
    their_seconds, their_mb, theirs = measured(clip_benchmark, data)
    ours += [measured(retrieval.recall, data) for _ in range(ROUNDS)]  # as busy as it was then
    seconds, values = statistics.median(m[0] for m in ours), ours[0][2]
    apart = max(abs(values[name] - float(value)) for name, value in theirs.items())
    if apart > 1e-6:
        raise AssertionError(f"recalls differ by {apart:.2g}")
    rows = [
        row(SMALL, "clip-benchmark 1.6.2", their_seconds, their_mb, "1.0"),
        row(
            SMALL,
            "clipbench",
            seconds,
            max(m[1] for m in ours),
            f"{their_seconds / seconds:.1f}",
            f">= {GOALS['ratio']} times, <= {GOALS['mb']} MB",
        ),
    ]
    torch.set_num_threads(2)
    seconds, mb, _ = measured(retrieval.recall, features(*LARGE), time.perf_counter)
    goal = f"<= {GOALS['seconds']} s on 2 cores, <= {GOALS['mb']} MB"
    return pd.DataFrame([*rows, row(LARGE, "clipbench, 2 threads", seconds, mb, "", goal)])
