"""MACE: refine context tokens in closed form, train a low-rank term against attention, fuse (arXiv 2403.06135)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations.attention import attention_to_text
from concept_probe.arguments import Count, SeedNumber
from concept_probe.erasers.closed_form.alignment import SUBJECT, TokenPolicy
from concept_probe.erasers.closed_form.solve import Balance, Moments, solve_uce
from concept_probe.erasers.closed_form.states import (
    READERS,
    fit_of,
    gather,
    multiplied,
    prompts_to_erase,
)
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.erasers.erasure.deltas import Delta, LowRank
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import descend, loss_at_ends
from concept_probe.erasers.training.replay import LatentBuffer, collect, encode_distinct
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Sampling, Site, Subspace


@dataclass(frozen=True)
class Contribution:
    """What one concept brings to the fusion."""

    states: Tensor
    """(n, d) tokens at which its change has to act, float64"""
    refined: Tensor
    """(d, d) K₀ of its first stage: W(I + K₀) answers its context tokens as their destinations"""
    terms: dict[str, LowRank]
    """u vᵀ of its second stage, by parameter address."""


def fuse(
    parts: Sequence[Contribution], retained: Float[Tensor, "m d"], *, alpha: float, beta: float, lam: float
) -> tuple[Float[Tensor, "d d"], list[Float[Tensor, "d d"]]]:
    """K and one F per part, with W' = W(I + K) + Σ_i (u_i v_iᵀ) F_i the least of

    αΣ_iΣ_e |W' e - (W(I + K_i) + u_i v_iᵀ) e|² + βΣ|W' p - W p|² + λ|W' - W|²

    over the tokens e of part i and preserved tokens p. With M = αΣ_iΣ e eᵀ + βΣ p pᵀ + λI it is F_i = αΣ e eᵀ M⁻¹
    and K = Σ_i K_i F_i: one solve for every matrix, and β in it once.
    """
    p = retained.double()
    each = [alpha * part.states.double().mT @ part.states.double() for part in parts]
    moment = beta * p.mT @ p + torch.stack(each).sum(0)
    moment.diagonal().add_(lam)
    factor, failed = torch.linalg.cholesky_ex(moment)
    if int(failed):
        raise ValueError(f"mace: the moment matrix ({len(moment)} wide) is singular; lam is {lam}, make it larger")
    filters = [torch.cholesky_solve(one, factor).mT for one in each]
    change = torch.stack([part.refined @ through for part, through in zip(parts, filters, strict=True)]).sum(0)
    return change, filters


@dataclass(frozen=True)
class Mace(Eraser[DiffusionSubject, Edit]):
    """Three stages: context tokens forget the concept, patches stop attending to it, both become one edit.

    >>> edit = Mace(steps=60)(subject, concept)
    >>> edit = Mace().together(subject, [camel, snake])
    """

    name = "mace"
    attention = "cross"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(
        {"lam": 10.0, "beta": 0.0, "balance": "sum", "norms": True},
        apart="masks are another model's; Adam's step is 1e-5 for every entry; some timesteps are preferred; the fusion stays "
        "near the refined weights",
    )
    policy: TokenPolicy = "context"
    """Which tokens the first stage edits; `context` are all that follow or stand between those of the subject."""
    guide: str | None = None
    """What stands in for the concept in the first stage; see `Uce`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that all stages use; they must name their subject."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are kept, all of their tokens."""
    lam: float = 0.1
    """Weight of staying near the old matrix everywhere, in the first stage and in the fusion."""
    beta: float = 1.0
    """Weight of each retained token, in the first stage and in the fusion."""
    balance: Balance = "mean"
    """As in `Uce`."""
    rank: Count = 1
    """Rank of each matrix's term against attention."""
    steps: Count = 50
    """Gradient steps of the second stage."""
    batch: Count = 4
    """Latents per step."""
    rate: float = 0.02
    """Adam's step, as a multiple of the root mean square of the weights' entries."""
    pictures: Count = 8
    """Trajectories from noise to pictures of the concept whose latents the second stage sees."""
    sampling: Sampling = Sampling()
    """How these pictures are made."""
    roles: tuple[str, ...] = READERS
    """Roles of the matrices that are edited."""
    within: tuple[str, ...] = ()
    """Beginnings of the paths of the matrices that are edited; empty: all of them."""
    seed: SeedNumber = 0
    """Of the pictures, of the terms and of the order of training."""
    strength: float = 1.0
    """Factor on the change of the weights."""
    norms: bool = False
    """Whether the second stage lowers the norm of each layer's attention, as in the authors' code, and not its mean square."""
    kept_tokens: TokenPolicy | None = None
    """Which tokens of the kept prompts; see `Uce`."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=2, pictures=2, sampling=TINY_SAMPLING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where no prompt of the concept names a subject."""
        return self._fused_from(subject, (concept,))

    def make_together(self, subject: DiffusionSubject, whole: Concept, found: tuple[Subspace, ...]) -> Edit:
        """Each concept has its own first two stages, the fusion is one."""
        return self._fused_from(subject, whole.parts)

    def _fused_from(self, subject: DiffusionSubject, concepts: Sequence[Concept]) -> Edit:
        parts, notes, retained, guides = [], [], [], {}
        for concept in concepts:
            (group,) = gather(subject, concept, self, self.name)
            states, sites = group.states, group.sites
            sums = states.moments()
            alpha, beta = sums.weights(1.0, self.beta, self.balance)
            refined = solve_uce(sums, lam=self.lam, alpha=alpha, beta=beta, method=self.name)
            deltas = multiplied(subject, sites, refined.change, len(states.target), 1.0)
            terms, losses = self._suppressed(subject, concept, sites, deltas)
            (acts,) = gather(subject, concept, replace(self, policy="suffix", guide="", preserve=()), self.name)
            parts.append(Contribution(acts.states.target, refined.change, terms))
            retained.append(states.retained)
            note = {"condition": refined.condition, "residual": refined.residual, "loss": loss_at_ends(losses)}
            notes.append(note | fit_of(refined.change, states))
            guides |= states.texts
        deltas = self._fused(subject, sites, parts, torch.cat(retained)) if self.strength else {}
        names = [concept.name for concept in concepts]
        measured = {"stages": notes, "concepts": names, "guides": guides}
        return Edit(self.name, "+".join(names), deltas, subject.weight_hash(), measured)

    def _suppressed(
        self, subject: DiffusionSubject, concept: Concept, sites: Sequence[Site], deltas: dict[str, Delta]
    ) -> tuple[dict[str, LowRank], list[float]]:
        """Second stage: terms that take attention away from the subject where the picture shows it."""
        prompts = [p for p in prompts_to_erase(concept, self.sources, self.name) if p.subject]
        if not prompts:
            raise ValueError(f"mace: no prompt of concept {concept.name!r} in {', '.join(self.sources)} has a subject")
        generator = torch.Generator().manual_seed(self.seed)
        adapters = LowRankAdapters(subject, sites, self.rank, self.seed)
        pool = collect(subject, prompts, self.pictures, self.sampling, self.seed)
        masks = subject_patches(subject, pool, self.name)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            index = torch.randint(len(pool), (min(self.batch, len(pool)),), generator=generator)
            part = pool.rows(index)
            condition = encode_distinct(subject, part.prompts)
            with attention_to_text(subject) as maps:
                subject.predict(part.inputs, part.timesteps, condition)
            asked = (condition.kinds == SUBJECT).to(maps[0])
            return attention_left(maps, [mask[index] for mask in masks], asked, self.norms)

        base = Edit(self.name, concept.name, deltas, subject.weight_hash())
        with base.on(subject):
            losses = descend(adapters, loss, steps=self.steps, rate=self.rate, generator=generator, method=self.name)
        return {where: d for where, d in adapters.deltas().items() if isinstance(d, LowRank)}, losses

    def _fused(
        self, subject: DiffusionSubject, sites: Sequence[Site], parts: list[Contribution], retained: Tensor
    ) -> dict[str, Delta]:
        """Third stage."""
        edited = torch.cat([part.states for part in parts])
        alpha, beta = Moments.of(edited, edited, retained).weights(1.0, self.beta, self.balance)
        change, filters = fuse(parts, retained, alpha=alpha, beta=beta, lam=self.lam)
        out = multiplied(subject, sites, change, len(edited), self.strength)
        for site in sites:
            where = address(site)
            parameter = find_parameter(subject.components, where)
            us, vs = [], []
            for part, through in zip(parts, filters, strict=True):
                us.append(part.terms[where].u.double() * self.strength)
                vs.append(through.mT.to(part.terms[where].v.device) @ part.terms[where].v.double())
            base, wide = out[where], dtype_of(parameter)
            assert isinstance(base, LowRank)
            out[where] = LowRank(
                torch.cat([base.u, torch.cat(us, 1).to(wide)], 1), torch.cat([base.v, torch.cat(vs, 1).to(wide)], 1)
            )
        return out


def attention_left(maps: Sequence[Tensor], masks: Sequence[Tensor], asked: Tensor, norms: bool = False) -> Tensor:
    """What patches of the subject still attend to its tokens, a scalar: summed over layers, the mean over n latents.

    Of each layer's `maps` (n, heads, patches, t) what lies inside `masks` (n, patches) and at tokens `asked` (n, t): the sum of
    squares over heads and patches, or with `norms` the norm of it all.
    """
    parts = []
    for one, mask in zip(maps, masks, strict=True):
        squares = (one * mask[:, None, :, None] * asked[:, None, None, :]).square().sum((1, 2, 3))
        if norms:  # the root has no slope at 0, where a picture shows nothing
            parts.append(squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt().mean())
        else:
            parts.append(squares.mean() / one.shape[1] / one.shape[2])
    return sum(parts, torch.zeros_like(parts[0]))


@torch.no_grad()
def subject_patches(subject: DiffusionSubject, pool: LatentBuffer, method: str, batch: int = 16) -> list[Tensor]:
    """Where a picture shows what its prompt names, per layer (n, patches) of 0 and 1.

    A patch counts where the untouched subject attends to the subject's tokens more than on average.
    """
    layers = []
    for start in range(0, len(pool), batch):
        part = pool.rows(torch.arange(start, min(start + batch, len(pool))))
        condition = encode_distinct(subject, part.prompts)
        asked: list[Prompt] = list(part.prompts)
        with attention_to_text(subject) as maps:
            subject.predict(part.inputs, part.timesteps, condition)
        named = (condition.kinds == SUBJECT).to(maps[0])[: len(asked), None, None, :]
        to_subject = [(one * named).sum(-1).mean(1) for one in maps]
        layers.append([(x > x.mean(1, keepdim=True)).to(x) for x in to_subject])
    return [torch.cat(of_layer) for of_layer in zip(*layers, strict=True)]
