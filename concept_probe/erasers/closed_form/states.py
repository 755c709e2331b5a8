"""What a closed form works on: the states of a concept's tokens and of their destinations, and the matrices that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.alignment import TokenPolicy, paired_states, retained_states
from concept_probe.erasers.closed_form.destinations import destinations_of, texts_of
from concept_probe.erasers.closed_form.solve import Moments, factors
from concept_probe.erasers.closed_form.streams import paired_in_streams, retained_in_streams
from concept_probe.erasers.erasure.deltas import Delta, LowRank
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.types import Concept, Kind, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject, Subject

READERS = ("cross_key_weight", "cross_value_weight")
"""Roles of the matrices that read the text: text states, or, in a diffusion transformer, a block's own text stream."""


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


class Selects(Protocol):
    """Options of a closed form that say which tokens and which matrices it takes; see `Uce`."""

    @property
    def policy(self) -> TokenPolicy: ...
    @property
    def guide(self) -> str | None: ...
    @property
    def sources(self) -> tuple[Kind, ...]: ...
    @property
    def preserve(self) -> tuple[Kind, ...]: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def within(self) -> tuple[str, ...]: ...
    @property
    def kept_tokens(self) -> TokenPolicy | None: ...


@dataclass(frozen=True)
class ReadStates:
    """Matrices that read one tensor, and what a closed form needs of it."""

    sites: tuple[Site, ...]
    """Weights, of one width."""
    place: Site | None
    """The tensor that they read; None for the text states."""
    states: TokenStates


def gather(subject: DiffusionSubject, concept: Concept, asked: Selects, method: str) -> list[ReadStates]:
    """The states that a closed form needs, all from the fit split, for each tensor that the chosen matrices read.

    Which prompt each is led to, `guide` or anchor, see `destinations_of`. ValueError where the concept has no prompts to
    erase, or no anchor, or where no matrix of `roles` lies `within`.
    """
    prompts = prompts_to_erase(concept, asked.sources, method)
    led = destinations_of(prompts, concept, asked.guide, method)
    destinations, texts = [led[p] for p in prompts], texts_of(led)
    others = [prompt for kind in asked.preserve for prompt in concept.prompts(kind, "fit")]
    groups = _by_place(subject, readers(subject, asked.roles, asked.within, method))
    places = [place for place in groups if place is not None]
    paired = (
        dict(zip(places, paired_in_streams(subject, places, prompts, destinations, asked.policy), strict=True))
        if places
        else {}
    )
    kept = (
        dict(zip(places, retained_in_streams(subject, places, others, asked.kept_tokens), strict=True))
        if places and others
        else {}
    )
    out = []
    for place, sites in groups.items():
        if place is None:
            target, destination = paired_states(subject, prompts, destinations, asked.policy)
            retained = retained_states(subject, others, asked.kept_tokens) if others else target[:0]
        else:
            target, destination = paired[place]
            retained = kept.get(place, target[:0])
        _check_widths(subject, sites, target.shape[1], method)
        out.append(ReadStates(tuple(sites), place, TokenStates(target, destination, retained, texts)))
    return out


def states_of(subject: DiffusionSubject, groups: Sequence[ReadStates], prompts: Sequence[Prompt]) -> list[Tensor]:
    """For each group, the states (n, d) of every token of some prompts that its matrices read, float64."""
    places = [group.place for group in groups if group.place is not None]
    found = dict(zip(places, retained_in_streams(subject, places, prompts), strict=True)) if places else {}
    return [retained_states(subject, prompts) if g.place is None else found[g.place] for g in groups]


def _by_place(subject: DiffusionSubject, sites: Sequence[Site]) -> dict[Site | None, list[Site]]:
    """Matrices by the tensor that they read."""
    out: dict[Site | None, list[Site]] = {}
    for site in sites:
        out.setdefault(subject.input_of(site), []).append(site)
    return out


def readers(subject: Subject, roles: Sequence[str], within: Sequence[str], method: str) -> list[Site]:
    """Weight sites of `roles` whose path begins with one of `within` (all, if empty). ValueError where there is none."""
    every = [site for role in roles for site in subject.sites(subject.counterpart(role))]
    chosen = [s for s in every if not within or s.path.startswith(tuple(within))]
    if not chosen:
        known = ", ".join(dict.fromkeys(".".join(s.path.split(".")[:2]) for s in every))
        raise ValueError(
            f"{method}: no matrix of {', '.join(roles)} lies within {', '.join(within)}; there are {known}"
        )
    return chosen


def _check_widths(subject: Subject, sites: Sequence[Site], width: int, method: str) -> None:
    for site in sites:
        reads = subject.matrix(site).shape[1]
        if reads != width:
            raise ValueError(f"{method}: {address(site)!r} reads width {reads}, the text states have {width}")


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


def measured_over(groups: Sequence[ReadStates], each: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What was measured of each group, as one: of one group as it is, of several the worst, and each by what it reads."""
    if len(each) == 1:
        return dict(each[0])
    worst = {name: max(one[name] for one in each if name in one) for name in each[0]}
    by_place = {str(g.place): dict(one) for g, one in zip(groups, each, strict=True)}
    return worst | {"by_place": by_place}
