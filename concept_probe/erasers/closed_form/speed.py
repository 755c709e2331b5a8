"""SPEED: an edit inside the null space of what is retained (arXiv 2503.07392)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count, Nonnegative, SeedNumber
from concept_probe.erasers.closed_form.alignment import TokenPolicy
from concept_probe.erasers.closed_form.null_space import left_to_edit
from concept_probe.erasers.closed_form.solve import Moments, Solution, left_over
from concept_probe.erasers.closed_form.states import (
    READERS,
    ReadStates,
    fit_of,
    gather,
    gram,
    measured_over,
    multiplied,
    states_of,
)
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Kind, Prompt, Subspace


def influenced(
    retain: Float[Tensor, "m d"], change: Float[Tensor, "d d"], stack: Float[Tensor, "d d"], least: float
) -> Tensor:
    """Bool (m,): the retained rows p that an unguarded edit K moves by Σ|W K p|² of at least `least` times the mean."""
    shifted = retain @ change.mT
    shift = (shifted @ stack * shifted).sum(1)
    return shift >= least * shift.mean()


def augmented(
    retain: Float[Tensor, "m d"], stack: Float[Tensor, "d d"], copies: int, directions: int, seed: int
) -> Float[Tensor, "q d"]:
    """The rows and `copies` of each with noise along the `directions` that the matrices answer least."""
    if not copies or not directions:
        return retain
    least = torch.linalg.eigh(stack)[1][:, :directions]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(copies, *retain.shape, generator=generator, dtype=retain.dtype).to(retain)
    return torch.cat([retain, (retain + noise @ least @ least.mT).flatten(0, 1)])


def solve_speed(
    sums: Moments, projector: Float[Tensor, "d d"], invariant: Float[Tensor, "q d"], *, rho: float, lam: float
) -> Solution:
    """K with W K = ΔP: least Σ|(W + ΔP)c - W g|² + ρ|ΔP|² with ΔP k = 0 for every row k of `invariant`.

    K = (Σgcᵀ - Σccᵀ) P [I - M Q(QᵀPMQ + λI)⁻¹QᵀP] M with M = (ΣccᵀP + ρI)⁻¹ and Q the invariant rows as columns.
    What `projector` P takes to 0 is answered as before, to rounding. Raises ValueError where rho is not positive.
    """
    if not rho > 0:
        raise ValueError(f"speed: rho is {rho}; it is the weight of a small change and must be positive")
    d = len(projector)
    eye = torch.eye(d, dtype=projector.dtype, device=projector.device)
    moment = sums.edited @ projector + rho * eye
    q = invariant.double().mT
    solved = torch.linalg.solve(moment, torch.cat([eye, q], 1))
    inverse, mq = solved[:, :d], solved[:, d:]
    small = q.mT @ projector @ mq
    small.diagonal().add_(lam)
    fixed = inverse - mq @ torch.linalg.lstsq(small, q.mT @ projector @ inverse, driver="gelsd").solution
    change = (sums.destination - sums.edited) @ projector @ fixed
    # The matrix is not symmetric; what its condition amplifies are its singular values.
    values = torch.linalg.svdvals(moment)
    return Solution(change, float(values[0] / values[-1]), left_over(moment @ inverse, eye))


@dataclass(frozen=True)
class Speed(Eraser[DiffusionSubject, Edit]):
    """Lead the concept's tokens to their destinations by a change that retained prompts cannot see.

    >>> edit = Speed(null=0.01)(subject, concept)
    """

    name = "speed"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(
        {
            "sources": ("target",),
            "policy": "last_subject",
            "roles": ("cross_value_weight",),
            "lam": 0.0,
            "eigenvalue": 0.1,
            "mean_over_prompts": True,
            "kept_tokens": "last_subject",
        },
        apart="tokens are counted matrix by matrix, copies a second time; the empty prompt's places are brought to three means",
    )
    null: float = 0.03
    """Share of the retained states' energy that the directions left for the edit may hold: 0 leaves exactly those
    that no retained state touches."""
    least: float = 1.0
    """A retained token counts if an unguarded edit moves it by at least this multiple of the mean; 0: all count."""
    copies: Count = 10
    """Noisy copies of each token that counts."""
    directions: Count = 1
    """Along how many of the directions that the matrices answer least the copies differ."""
    rho: float = 1.0
    """ρ: weight of a small change."""
    lam: float = 1e-6
    """λ: softens the equality constraints on the beginning token and the empty prompt; 0 is exact."""
    policy: TokenPolicy = "suffix"
    """Which tokens are edited; see `Uce`."""
    guide: str | None = None
    """What stands in for the concept; see `Uce`."""
    sources: tuple[Kind, ...] = FORGET_KINDS
    """Lists of the concept's prompts (fit split) that are erased."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are retained, all of their tokens."""
    roles: tuple[str, ...] = READERS
    """Roles of the matrices that are edited."""
    within: tuple[str, ...] = ()
    """Beginnings of the paths of the matrices that are edited; empty: all of them."""
    seed: SeedNumber = 0
    """Of the noise."""
    strength: float = 1.0
    """Factor on the change of the weights."""
    kept_tokens: TokenPolicy | None = None
    """Which tokens of the kept prompts; see `Uce`."""
    mean_over_prompts: bool = False
    """Whether sums over edited tokens are divided by the number of prompts, as the authors' code divides by that of concepts;
    else ρ weighs less the more prompts there are."""
    eigenvalue: Nonnegative | None = None
    """In place of `null`: directions that the retained tokens' mean moment gives less than this are left for the edit, as in
    the authors' code, 0.1. Only as good as the scale of the states."""

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where there is nothing to erase, or no direction is left for the edit."""
        groups = gather(subject, concept, self, self.name)
        deltas, measured, left, counted = {}, [], [], []
        for group, invariant in zip(groups, states_of(subject, groups, [Prompt("")]), strict=True):
            solution, directions, tokens = self._solved(subject, group, invariant)
            deltas |= multiplied(subject, group.sites, solution.change, len(group.states.target), self.strength)
            solved = {"condition": solution.condition, "residual": solution.residual}
            measured.append(solved | fit_of(solution.change, group.states))
            left.append(directions)
            counted.append(tokens)
        return self.edit(
            subject,
            concept,
            deltas,
            directions_left=min(left),
            retained_tokens=sum(counted),
            guides=groups[0].states.texts,
            **measured_over(groups, measured),
        )

    def _solved(self, subject: DiffusionSubject, group: ReadStates, invariant: Tensor) -> tuple[Solution, int, int]:
        """The solve for one tensor that is read, how many directions were left for it, and how many tokens count."""
        states, d = group.states, group.states.target.shape[1]
        sums, stack = states.moments(), gram(subject, group.sites)
        if self.mean_over_prompts:
            n = len(states.texts)
            sums = replace(sums, edited=sums.edited / n, destination=sums.destination / n)
        free = solve_speed(sums, torch.eye(d, dtype=torch.float64).to(stack), invariant[:0], rho=self.rho, lam=self.lam)
        counted = influenced(states.retained, free.change, stack, self.least)
        retain = augmented(states.retained[counted], stack, self.copies, self.directions, self.seed)
        projector = left_to_edit(retain, self.null, self.eigenvalue, f"speed: {int(counted.sum())} retained tokens")
        left = round(float(projector.trace()))
        return solve_speed(sums, projector, invariant, rho=self.rho, lam=self.lam), left, int(counted.sum())
