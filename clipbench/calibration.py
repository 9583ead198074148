"""One number that makes a model's probabilities mean what they say (Guo et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor

WIDEST = 4.6  # of log T either way: of a split without a mistake the best T is 0


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 for which ``softmax(logits / T)`` has the least negative log-likelihood.

    Args:
        logits: (n, C) of held-out rows; -inf where a class is no choice.
        labels: (n,).

    Returns:
        T, in 0.01..100; it changes no prediction.
    """
    # -inf times a slope of 0 is NaN
    scores, labels = logits.double().clamp(min=-1e9), labels.clone()  # out of inference mode
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scores / log_t.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log_t.detach().clamp(-WIDEST, WIDEST).exp())
