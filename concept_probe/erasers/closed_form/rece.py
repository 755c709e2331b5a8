"""RECE: closed-form edits against the embedding that would bring the concept back, repeated (arXiv 2407.12383)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Natural, Nonnegative
from concept_probe.erasers.closed_form.alignment import TokenPolicy
from concept_probe.erasers.closed_form.solve import Balance, Moments, Solution, solve_uce
from concept_probe.erasers.closed_form.states import (
    READERS,
    TokenStates,
    fit_of,
    gather,
    gram,
    measured_over,
    multiplied,
)
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Kind, Subspace


def derive(
    target: Float[Tensor, "n d"], destination: Float[Tensor, "n d"], change: Float[Tensor, "d d"],
    stack: Float[Tensor, "d d"], ridge: float,
) -> tuple[Float[Tensor, "n d"], float]:  # fmt: skip
    """Embeddings c' that edited matrices answer as the originals answered `target`, and how well they do.

    c' = (λI + Σ WᵀW)⁻¹ (Σ WᵀW₀) c with W = W₀(I + K): for all matrices at once it takes no more than
    `stack` = Σ W₀ᵀW₀ and K (`change`). The second value is 1 - Σ|W c' - W₀ c|² / Σ|W₀ g - W₀ c|²: 1 where the
    derived embeddings bring the concept back whole, 0 where they come no nearer to it than the destinations g.
    """
    after = torch.eye(len(change), dtype=change.dtype, device=change.device) + change
    read = after.mT @ stack
    moment = read @ after
    moment.diagonal().add_(ridge)
    derived = torch.cholesky_solve(read @ target.mT, torch.linalg.cholesky(moment)).mT
    missing = derived @ after.mT - target
    lost, whole = ((x @ stack * x).sum() for x in (missing, destination - target))
    return derived, float(1 - lost / whole.clamp_min(torch.finfo(whole.dtype).tiny))


@dataclass(frozen=True)
class Rounds:
    """How embeddings are derived and led away after the first edit."""

    count: int
    ridge: float
    """λ of `derive`."""
    remember: float
    """Weight, in each round, of every token edited before; at 0 it is the paper's round."""
    first_lam: float | None = None
    """λ of the first edit, where that is another than of the rounds."""


@dataclass(frozen=True)
class Derived:
    """What the rounds of RECE gave."""

    solution: Solution
    """Of the last round; `change` is the whole change since the original matrices."""
    regained: tuple[float, ...]
    """Before each round: how much of the concept its derived embeddings bring back; see `derive`."""


def solve_rece(
    states: TokenStates, stack: Float[Tensor, "d d"], rounds: Rounds, *, lam: float, alpha: float, beta: float
) -> Derived:
    """UCE, then `rounds.count` times UCE on the derived embeddings, each staying near the edit before it.

    Round k: W_k = [λW_{k-1} + αΣ(W₀ g)c'ᵀ + βΣ(W₀ p)pᵀ][λI + αΣc'c'ᵀ + βΣppᵀ]⁻¹. Destinations and retained tokens
    are answered as by the original W₀. Tokens edited in earlier rounds stand beside c' with the weight `remember`, all of
    them together weighing α. `stack` is Σ W₀ᵀW₀.
    """
    sums = states.moments()
    begun = lam if rounds.first_lam is None else rounds.first_lam
    solution = solve_uce(sums, lam=begun, alpha=alpha, beta=beta, method="rece")
    regained, earlier = [], (sums.edited, sums.destination)
    for before in range(1, rounds.count + 1):
        derived, share = derive(states.target, states.destination, solution.change, stack, rounds.ridge)
        regained.append(share)
        edited, destination = derived.mT @ derived, states.destination.mT @ derived
        whole = 1 + rounds.remember * before
        of_round = Moments(
            (edited + rounds.remember * earlier[0]) / whole,
            (destination + rounds.remember * earlier[1]) / whole,
            sums.retained,
            sums.count_edited,
            sums.count_retained,
        )
        earlier = (earlier[0] + edited, earlier[1] + destination)
        solution = solve_uce(of_round, lam=lam, alpha=alpha, beta=beta, start=solution.change, method="rece")
    return Derived(solution, tuple(regained))


@dataclass(frozen=True)
class Rece(Eraser[DiffusionSubject, Edit]):
    """UCE, then the embeddings that would still be answered as the concept are found and led away too.

    >>> edit = Rece(rounds=4)(subject, concept)
    """

    name = "rece"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(
        {
            "rounds": 1,
            "ridge": 1e-3,
            "absolute_ridge": True,
            "remember": 0.0,
            "policy": "last_suffix",
            "sources": ("target",),
            "beta": 0.1,
            "balance": "sum",
            "first_lam": 0.5,
        },
        apart="rounds lead every place of a text, the beginning too",
    )
    rounds: Natural = 2
    """How often embeddings are derived and led away after the first edit."""
    ridge: float = 0.01
    """λ of the derived embeddings as a share of the mean eigenvalue of Σ WᵀW: the larger, the nearer to 0 they
    stay, and the less each round changes."""
    remember: float = 1.0
    """Weight, in each round, of every token edited before: at 0, the paper's round, only λ keeps the first edit."""
    policy: TokenPolicy = "suffix"
    """Which tokens are edited; see `Uce`."""
    guide: str | None = None
    """What stands in for the concept; see `Uce`."""
    sources: tuple[Kind, ...] = FORGET_KINDS
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are kept, all of their tokens."""
    lam: float = 0.1
    """λ: weight of staying near the matrix of the round before."""
    alpha: float = 1.0
    """α: weight of each edited token."""
    beta: float = 1.0
    """β: weight of each preserved token."""
    balance: Balance = "mean"
    """As in `Uce`."""
    roles: tuple[str, ...] = READERS
    """Roles of the matrices that are edited."""
    within: tuple[str, ...] = ()
    """Beginnings of the paths of the matrices that are edited; empty: all of them."""
    strength: float = 1.0
    """Factor on the change of the weights."""
    kept_tokens: TokenPolicy | None = None
    """Which tokens of the kept prompts; see `Uce`."""
    absolute_ridge: bool = False
    """Whether `ridge` is λ itself, as published, and not a share of the mean eigenvalue of Σ WᵀW, which differs from model to
    model."""
    first_lam: Nonnegative | None = None
    """λ of the first edit, 0.5 as published; None: that of the rounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 0:
            raise ValueError(f"rece: rounds is {self.rounds}; 0 is UCE alone, each more derives embeddings once")

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts to erase."""
        groups = gather(subject, concept, self, self.name)
        deltas, measured, regained = {}, [], []
        for group in groups:
            states, stack = group.states, gram(subject, group.sites)
            alpha, beta = states.moments().weights(self.alpha, self.beta, self.balance)
            ridge = self.ridge * (1.0 if self.absolute_ridge else float(stack.diagonal().mean()))
            rounds = Rounds(self.rounds, ridge, self.remember, self.first_lam)
            derived = solve_rece(states, stack, rounds, lam=self.lam, alpha=alpha, beta=beta)
            change = derived.solution.change
            _, after = derive(states.target, states.destination, change, stack, ridge)
            deltas |= multiplied(subject, group.sites, change, len(states.target) * (self.rounds + 1), self.strength)
            solved = {"condition": derived.solution.condition, "residual": derived.solution.residual}
            measured.append(solved | fit_of(change, states))
            regained.append([*derived.regained, after])
        return self.edit(
            subject,
            concept,
            deltas,
            regained=regained[0] if len(groups) == 1 else [max(of_round) for of_round in zip(*regained, strict=True)],
            guides=groups[0].states.texts,
            **measured_over(groups, measured),
        )
