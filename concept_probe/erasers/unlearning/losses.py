"""What unlearning of a language model minimises: functions of log probabilities and activations, and nothing else.

Each log probability is that of a whole answer given its prompt; neither the prompt's tokens nor those that only fill
a batch are in it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid


def nll(mean: Float[Tensor, "n"]) -> Tensor:
    """Mean over answers of the negative log likelihood per token, from `mean` log probabilities per token (nats)."""
    return -mean.mean()


def npo(total: Float[Tensor, "n"], reference: Float[Tensor, "n"], beta: float) -> Tensor:
    """Negative preference optimisation: -(2/β) E[log σ(-β log π(y|x)/π_ref(y|x))] (arXiv 2404.05868).

    `total` and `reference` are log probabilities of whole answers. As β goes to 0 its gradient becomes that of ascent.
    """
    return -(2 / beta) * logsigmoid(-beta * (total - reference)).mean()


def simnpo(mean: Float[Tensor, "n"], beta: float, gamma: float) -> Tensor:
    """NPO without a reference: -(2/β) E[log σ(-(β/|y|) log π(y|x) - γ)] (arXiv 2410.07163); `mean` is per token."""
    return -(2 / beta) * logsigmoid(-beta * mean - gamma).mean()


def dpo(
    wanted: Float[Tensor, "n"], wanted_reference: Float[Tensor, "n"],
    other: Float[Tensor, "n"], other_reference: Float[Tensor, "n"], beta: float,
) -> Tensor:  # fmt: skip
    """Direct preference optimisation: -E[log σ(β log π(y_w)/π_ref(y_w) - β log π(y_l)/π_ref(y_l))].

    Source: arXiv 2305.18290, eq. 7; here y_w is what should be said and y_l what should be forgotten.
    """
    return -logsigmoid(beta * ((wanted - wanted_reference) - (other - other_reference))).mean()


def weighted_ascent(own: Float[Tensor, "m"], alpha: float) -> Tensor:
    """Gradient ascent, each token weighted by how likely it is: E[sg(p^α) log p] (arXiv 2502.19301).

    `own` are log probabilities of the answers' tokens, all answers together; sg stops gradients. At α = 0 it is ascent.
    """
    return ((alpha * own.detach()).exp() * own).mean()


def less_of_token(
    now: Float[Tensor, "m v"], before: Float[Tensor, "m v"], ids: Int[Tensor, "m"], beta: float
) -> Tensor:
    """Cross entropy to the reference with the answer's own token made less likely: softmax(z_ref − β e_y) (arXiv 2402.10052).

    `now` and `before` are log probabilities of all tokens in the place of each of an answer's; the mean is over places.
    """
    goal = before.scatter_add(1, ids[:, None], torch.full_like(before[:, :1], -beta)).softmax(-1)
    return -(goal * now).sum(-1).mean()


def distance(x: Float[Tensor, "b t d"], goal: Tensor, read: Tensor) -> Tensor:
    """E over rows of (1/|x|) Σ_t ‖x_t - goal_t‖² over the positions where `read` (b, t) is true (arXiv 2403.03218).

    `goal` is (d,) or (b, t, d). Raises ValueError where a row has no position to read.
    """
    counts = read.sum(1)
    if bool((counts == 0).any()):
        raise ValueError(f"{int((counts == 0).sum())} of {len(counts)} rows have no position to compare")
    squares = (x - goal).float().square().sum(-1)
    return (torch.where(read, squares, 0.0).sum(1) / counts).mean()


def divergence(logits: Float[Tensor, "n v"], reference: Float[Tensor, "n v"]) -> Tensor:
    """Mean over rows of KL(reference ‖ model), in nats."""
    before = reference.float().log_softmax(-1)
    return (before.exp() * (before - logits.float().log_softmax(-1))).sum(-1).mean()
