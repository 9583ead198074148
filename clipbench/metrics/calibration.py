"""One number that makes a model's probabilities mean what they say (Guo et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.metrics.classification import blocks

WIDEST = 4.6  # of log T either way: of a split without a mistake the best T is 0


def temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T > 0 whose ``softmax(logits / T)`` has the least negative log-likelihood.

    Args:
        logits: (n, C) of held-out rows; -inf where a class is no choice.
        labels: (n,).

    Returns:
        T, in 0.01..100; it changes no prediction.
    """
    labels = labels.clone()  # out of inference mode
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        whole = torch.zeros((), dtype=torch.float64)
        for rows in blocks(logits):
            # -inf times a slope of 0 is NaN
            scaled = logits[rows].double().clamp(min=-1e9) / log_t.exp()
            loss = F.cross_entropy(scaled, labels[rows], reduction="sum") / len(labels)
            loss.backward()  # type: ignore[no-untyped-call]
            whole += loss.detach()
        return whole

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log_t.detach().clamp(-WIDEST, WIDEST).exp())
