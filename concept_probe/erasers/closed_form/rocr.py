"""ROCR: what feed-forwards read at the concept's name is answered as another name would be (arXiv 2506.07795)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.erasers.closed_form.destinations import renamed, texts_of
from concept_probe.erasers.closed_form.solve import Solution, solve_uce
from concept_probe.erasers.closed_form.states import TokenStates, fit_of, multiplied
from concept_probe.erasers.closed_form.subject_keys import at_places, edited_blocks, last_of_subject, refuse_gap
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.deltas import Delta
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.published import Published
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.families import CausalLMSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace


@dataclass(frozen=True)
class Rocr(Eraser[CausalLMSubject, Edit]):
    """At the last token of the concept's name, down projections give what they give at another name, in every phrasing.

    >>> edit = Rocr(guide="Brazil")(subject, concept)
    >>> edit.made_by["solved"]      # per matrix: condition number, residual, share of the gap that is left
    """

    name = "rocr"
    makes = "edit"
    on = "texts"
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(read_in="nowhere")
    guide: str | None = None
    """The name that stands in; None: that of the concept's first anchor, or of its first neighbour."""
    layers: tuple[int, ...] = ()
    """Blocks whose down projections are edited, rising; empty: the four up to the middle. Later tokens read what stands
    at the name, so the last one of them must have blocks above it."""
    sources: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) whose phrasings are redirected, those that name their subject."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose keys are kept, all of their tokens but the first; so are those of the
    phrasings with the other name."""
    beta: float = 10.0
    """β: weight of the mean kept key against that of the mean key of the concept."""
    lam: float = 0.1
    """λ, as a multiple of the mean diagonal of what it is added to."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is solved."""

    def make(self, subject: CausalLMSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """Raises ValueError where no fit prompt names its subject, there is no other name or nothing to keep, for a layer that
        the model lacks, and for an edit that leaves nearly all of the way to the other name.
        """
        layers = edited_blocks(subject, self.layers, self.name)
        edited = [p for kind in self.sources for p in concept.prompts(kind, "fit") if p.subject]
        others = [p for kind in self.preserve for p in concept.prompts(kind, "fit")]
        if not edited or not others:
            raise ValueError(
                f"rocr: {concept.name!r} needs fit prompts that name their subject in {', '.join(self.sources)}, found "
                f"{len(edited)}, and some in {', '.join(self.preserve)} to keep, found {len(others)}"
            )
        guide = self.other_name(concept)
        led = {prompt: renamed(prompt, guide) for prompt in edited}
        destinations = [led[prompt] for prompt in edited]
        deltas: dict[str, Delta] = {}
        solved: dict[str, dict[str, float]] = {}
        base = subject.weight_hash()
        for layer in layers if self.strength else ():
            value = subject.sites("mlp_value")[layer]
            with Edit(self.name, "", deltas, base).on(subject):
                keys = self.keys(subject, layer, edited, destinations, others)
            solution = self.solved(keys)
            solved[str(value)] = {"condition": solution.condition, "residual": solution.residual}
            solved[str(value)] |= fit_of(solution.change, keys)
            refuse_gap(
                self.name, solved[str(value)]["gap_left"], [layer], "lower `beta` or `lam`, or keep fewer prompts"
            )
            deltas |= multiplied(subject, [value], solution.change, len(edited), 1.0)
        deltas = {where: delta.scaled(self.strength) for where, delta in deltas.items()}
        return self.edit(
            subject, concept, deltas, guide=guide, layers=list(layers), solved=solved, guides=texts_of(led)
        )

    def other_name(self, concept: Concept) -> str:
        """The name that stands in. Raises ValueError where none is given and no anchor or neighbour has one."""
        names = [p.subject for kind in ("anchor", "neighbours") for p in concept.prompts(kind, "fit") if p.subject]
        if self.guide is not None and self.guide.strip():
            return self.guide.strip()
        if self.guide is not None or not names:
            raise ValueError(
                f"rocr: guide is {self.guide!r}, and {concept.name!r} has {len(names)} fit prompts of anchors or "
                "neighbours that name their subject; give a `guide`, a name that stands in for the concept's"
            )
        return names[0]

    def keys(
        self, model: CausalLMSubject, layer: int, edited: Sequence[Prompt], destinations: Sequence[Prompt],
        others: Sequence[Prompt],
    ) -> TokenStates:  # fmt: skip
        """What the down projection of a block reads: at the concept's name, at the other name, and elsewhere; float64."""
        hidden = model.sites("mlp_hidden")[layer]
        own, goal = (at_places(model, hidden, p, last_of_subject(model, p)).double() for p in (edited, destinations))
        retained = [*dict.fromkeys((*others, *destinations))]
        with torch.no_grad():
            parts = [read_site(model, hidden, retained[i : i + 32]) for i in range(0, len(retained), 32)]
        rest: Tensor = torch.cat([x[after_first_token(read)] for x, read in parts]).double()
        return TokenStates(own, goal, rest, {a.text: b.text for a, b in zip(edited, destinations, strict=True)})

    def solved(self, keys: TokenStates) -> Solution:
        """K (h, h) with W' = W + W K: [E[(g - c) cᵀ]] [E[c cᵀ] + β E[p pᵀ] + λ I]⁻¹, the same for every W."""
        sums = keys.moments()
        alpha, beta = 1 / max(sums.count_edited, 1), self.beta / max(sums.count_retained, 1)
        size = float((alpha * sums.edited + beta * sums.retained).diagonal().mean())
        return solve_uce(sums, lam=self.lam * size, alpha=alpha, beta=beta, method=self.name)
