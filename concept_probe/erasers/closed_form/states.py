"""What a closed form works on: the states of a concept's tokens and of their destinations, and the matrices that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.alignment import TokenPolicy, paired_states, retained_states
from concept_probe.erasers.closed_form.destinations import destinations_of, texts_of
from concept_probe.erasers.closed_form.solve import Moments, factors
from concept_probe.erasers.erasure.deltas import Delta, LowRank
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.types import Concept, Kind, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

READERS = ("cross_key_weight", "cross_value_weight")
"""Roles of the matrices that read text states."""


@dataclass(frozen=True)
class TokenStates:
    """Rows of text states (.., d), float64."""

    target: Tensor
    """(n, d) edited tokens"""
    destination: Tensor
    """(n, d) what each of them is led to"""
    retained: Tensor
    """(m, d) tokens that are to be answered as before"""
    texts: dict[str, str]
    """Text of each edited prompt to that of its destination."""

    def moments(self) -> Moments:
        return Moments.of(self.target, self.destination, self.retained)


def prompts_to_erase(concept: Concept, sources: Sequence[Kind], method: str) -> list[Prompt]:
    """The concept's fit prompts of some lists. ValueError where there is none."""
    prompts = [prompt for kind in sources for prompt in concept.prompts(kind, "fit")]
    if not prompts:
        raise ValueError(f"{method}: concept {concept.name!r} has no prompts in {', '.join(sources)} (fit split)")
    return prompts


def gather(
    subject: Subject, concept: Concept, *, policy: TokenPolicy, guide: str | None, sources: Sequence[Kind],
    preserve: Sequence[Kind], method: str,
) -> TokenStates:  # fmt: skip
    """The states that a closed form needs, all from the fit split.

    Which prompt each is led to, `guide` or anchor, see `destinations_of`. ValueError where the concept has no prompts to
    erase, or no anchor.
    """
    prompts = prompts_to_erase(concept, sources, method)
    led = destinations_of(prompts, concept, guide, method)
    target, destination = paired_states(subject, prompts, [led[p] for p in prompts], policy)
    others = [prompt for kind in preserve for prompt in concept.prompts(kind, "fit")]
    retained = retained_states(subject, others) if others else target[:0]
    return TokenStates(target, destination, retained, texts_of(led))


def readers(subject: Subject, roles: Sequence[str], within: Sequence[str], width: int, method: str) -> list[Site]:
    """Weight sites of `roles` whose path begins with one of `within` (all, if empty).

    ValueError where there is none, or where one reads another width than the text states have.
    """
    every = [site for role in roles for site in subject.sites(role)]
    chosen = [s for s in every if not within or s.path.startswith(tuple(within))]
    if not chosen:
        known = ", ".join(dict.fromkeys(".".join(s.path.split(".")[:2]) for s in every))
        raise ValueError(
            f"{method}: no matrix of {', '.join(roles)} lies within {', '.join(within)}; there are {known}"
        )
    for site in chosen:
        reads = find_parameter(subject.components, address(site)).shape[1]
        if reads != width:
            raise ValueError(f"{method}: {address(site)!r} reads width {reads}, the text states have {width}")
    return chosen


@torch.no_grad()
def gram(subject: Subject, sites: Sequence[Site]) -> Tensor:
    """Σ WᵀW (d, d) over matrices, float64: how strongly all of them together answer a state."""
    total = None
    for site in sites:
        weight = find_parameter(subject.components, address(site)).detach().double()
        total = weight.mT @ weight if total is None else total.addmm_(weight.mT, weight)
    assert total is not None
    return total


@torch.no_grad()
def multiplied(subject: Subject, sites: Sequence[Site], change: Tensor, most: int, strength: float) -> dict[str, Delta]:
    """Deltas W -> W + strength W K for each matrix; `most` bounds the rank of K (d, d). Nothing at strength 0."""
    if not strength:
        return {}
    left, right = factors(change, most)
    left, deltas = left * strength, {}
    for site in sites:
        parameter = find_parameter(subject.components, address(site))
        wide = dtype_of(parameter)
        edited = subject.matrix(site).detach().double() @ left.to(parameter.device)
        right_here = right.to(parameter.device, wide).clone()
        deltas[address(site)] = LowRank(edited.to(wide), right_here, subject.orientation(site))
    return deltas


def fit_of(change: Tensor, states: TokenStates) -> dict[str, float]:
    """How far edited tokens still are from their destinations (1: where they were), and how far retained ones went."""
    gap = torch.linalg.matrix_norm(states.destination - states.target).clamp_min(torch.finfo(torch.float64).tiny)
    left = torch.linalg.matrix_norm(states.target + states.target @ change.mT - states.destination) / gap
    out = {"gap_left": float(left)}
    if len(states.retained):
        drift = torch.linalg.matrix_norm(states.retained @ change.mT) / torch.linalg.matrix_norm(states.retained)
        out["preserved_drift"] = float(drift)
    return out
