"""Linear probes of an audit: each model gets its own, and they are read on words that they were not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from concept_probe.auditing.context import Context
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.states import identical
from concept_probe.evaluation.bayesian import Draws, at_least, mean_of
from concept_probe.types import Prompt

CHANCE = 0.5
"""AUROC of a probe that reads nothing. A control below it knows no less than nothing: the distance to it would be read as
knowledge."""
SHUFFLES = 10
"""Probes of shuffled labels; what they read, in the mean, is what is read of nothing."""


@dataclass(frozen=True, eq=False)
class RidgeProbe:
    """Linear readers fitted by ridge regression on labels ±1; one per column of the labels."""

    mean: Float[Tensor, "d"]
    scale: Float[Tensor, "d"]
    weight: Float[Tensor, "d m"]

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... m"]:
        return ((x.double() - self.mean) / self.scale) @ self.weight


def fit_ridge_probe(x: Float[Tensor, "n d"], labels: Bool[Tensor, "n m"], penalty: float = 0.1) -> RidgeProbe:
    """w = Zᵀ (Z Zᵀ + penalty · tr(Z Zᵀ)/n · 1)⁻¹ y for standardised columns Z and y = ±1 weighted to sum to 0.

    Solved over rows, not dimensions, so that a hundred shuffled labels cost one solve.
    Raises ValueError where a column of labels has only one kind.
    """
    share = labels.double().mean(0)
    if bool(((share == 0) | (share == 1)).any()):
        raise ValueError("a probe needs rows of the concept and rows of others to be fitted on")
    x = x.double()
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-8)
    z = (x - mean) / scale
    y = torch.where(labels, 1 / share, -1 / (1 - share))
    gram = z @ z.mT
    gram += penalty * gram.diagonal().mean().clamp_min(1e-8) * torch.eye(len(z), dtype=z.dtype)
    return RidgeProbe(mean, scale, z.mT @ torch.linalg.solve(gram, y))


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """Activations to fit a probe on, and others, of prompts that are known, to read it from."""

    fit: Float[Tensor, "n d"]
    """Of the concept."""
    fit_others: Float[Tensor, "m d"]
    held: Float[Tensor, "p *s d"]
    """Of the concept, held out; inside the denoiser with an axis of seeds."""
    held_others: Float[Tensor, "q *s d"]
    prompts: Sequence[Prompt]
    """Of `held`."""
    prompts_others: Sequence[Prompt]
    """Of `held_others`."""

    def tensors(self) -> tuple[Tensor, ...]:
        return self.fit, self.fit_others, self.held, self.held_others

    def probe(self, shuffles: int, seed: int) -> RidgeProbe:
        """Column 0 reads the concept; the others were fitted on shuffled labels."""
        x = torch.cat([self.fit, self.fit_others])
        own = torch.arange(len(x)) < len(self.fit)
        generator = torch.Generator().manual_seed(seed)
        mixed = [own[torch.randperm(len(x), generator=generator)] for _ in range(shuffles)]
        return fit_ridge_probe(x, torch.stack([own, *mixed], dim=1))


@dataclass(frozen=True, eq=False)
class ProbeReadings:
    """AUROC of probes at one place."""

    before: Draws
    """Of the probe of the subject before."""
    after: Draws
    """Of the erased model's own."""
    foreign: Draws
    """Of the probe of before on the erased model."""
    shuffled: Draws
    """On the erased model, mean over probes of shuffled labels."""
    never: Draws | None
    """Of the control's own, at chance where it reads less; None where there is no control."""
    beside: bool = False
    """Whether the erasure does not reach the place."""


def read_probes(
    context: Context, key: str, rows_of: Callable[[Observation], ProbeRows], made_up: ProbeRows | None = None
) -> ProbeReadings:
    """AUROC of each side's own probe, and of that of before on after. Wordings of one fact are drawn together.

    Without a twin the control is the made-up concept, whose rows are `made_up`; without those there is none.
    """
    seed = context.plan.seed

    def read(probe: RidgeProbe, rows: ProbeRows, name: str, column: int = 0) -> Draws:
        of, others = probe(rows.held)[..., column], probe(rows.held_others)[..., column]
        if of.ndim == 2:  # inside the denoiser a prompt has one reading per seed; prompts are what is drawn
            of, others = of.mean(1), others.mean(1)
        facts = number_of_fact(rows.prompts), number_of_fact(rows.prompts_others)
        return context.bootstrap.auroc(of, others, key, name, facts)

    before, after = rows_of(context.seen.before), rows_of(context.seen.after)
    first, second = before.probe(0, seed), after.probe(SHUFFLES, seed)
    # Activations that are the same to the bit are the same evidence, not a second sample of it.
    name = "before" if identical(before.tensors(), after.tensors()) else "after"
    never = None
    if context.seen.control is not None:
        rows = rows_of(context.seen.control)
        same = identical(rows.tensors(), after.tensors())
        never = read(rows.probe(0, seed), rows, name if same else "control")
    elif made_up is not None:
        never = read(made_up.probe(0, seed), made_up, "made up")
    return ProbeReadings(
        read(first, before, "before"),
        read(second, after, name),
        read(first, after, name),
        mean_of([read(second, after, f"shuffled {i}", i) for i in range(1, SHUFFLES + 1)]),
        None if never is None else at_least(never, CHANCE),
        context.beside(before.tensors(), after.tensors()),
    )


def mean_over(several: Sequence[ProbeReadings]) -> ProbeReadings:
    """Of readings at several steps of one place."""
    never = [r.never for r in several if r.never is not None]
    return ProbeReadings(
        mean_of([r.before for r in several]),
        mean_of([r.after for r in several]),
        mean_of([r.foreign for r in several]),
        mean_of([r.shuffled for r in several]),
        mean_of(never) if never else None,
        all(r.beside for r in several),
    )


def number_of_fact(prompts: Sequence[Prompt]) -> Tensor:
    """(n,) long: the number of the fact that each prompt asks for. Prompts without one count each."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(p.fact or p.text, len(number)) for p in prompts], dtype=torch.long)
