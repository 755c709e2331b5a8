"""MEMIT: rewrite what several feed-forwards recall of the concept, in closed form (arXiv 2210.07229)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.goals import OffsetSearch, with_offsets
from concept_probe.erasers.closed_form.key_values import solve_key_values, weight_of_solve
from concept_probe.erasers.closed_form.subject_keys import at_places, edited_blocks, last_of_subject, refuse_gap
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.deltas import Delta, LowRank
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import loss_at_ends
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, answer_pairs, preferred_pairs
from concept_probe.families import CausalLMSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Site, Subspace


@dataclass(frozen=True)
class Memit(Eraser[CausalLMSubject, Edit]):
    """At the last token of the subject, the edited layers write what makes something else the answer.

    >>> edit = Memit(layers=(8, 9, 10), instead=())(subject, concept)      # a distractor of each prompt
    """

    name = "memit"
    makes = "edit"
    on = "texts"
    needs = Needs(answers=True)
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(
        {"instead": (), "decay": 0.5, "lam": 20000.0, "lam_of_sum": True},
        apart="kept keys are of 100,000 texts, read once; a divergence holds what the subject is; prefixes stand before prompts",
    )
    layers: tuple[int, ...] = ()
    """Blocks whose down projections are edited, rising; empty: the four up to the middle. Later tokens read what
    stands at the subject, so the last one of them must have blocks above it."""
    instead: tuple[str, ...] = ("unknown.", "not known.", "a secret.")
    """What should be said, taken in turn; nothing: each prompt's first distractor."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are rewritten, those with answers."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose keys are kept, all of their tokens but the first."""
    steps: Count = 20
    """Gradient steps of the offsets δ."""
    rate: float = 0.5
    """Adam's step, as a multiple of the root mean square of the stream where δ is added."""
    decay: float = 0.05
    """Weight of |δ|² / |h|² beside the negative log likelihood of what should be said."""
    most: float = 0.75
    """Largest |δ| / |h|: after each step, a longer offset is shortened to it."""
    lam: float = 100.0
    """λ: weight of kept keys against those of the concept."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is solved."""
    lam_of_sum: bool = False
    """Whether λ weighs the mean kept key against the sum of the concept's, as published, and not against their mean: it is then
    divided by their number."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12)

    def make(self, subject: CausalLMSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """Raises ValueError where there is nothing to keep, for a layer that the model lacks, and for an edit that leaves
        nearly all of the way to what should be said."""
        layers = edited_blocks(subject, self.layers, self.name)
        goals: dict[str, AnswerPair] = {}
        for prompt, text in answer_pairs(concept, self.sources):
            goals.setdefault(prompt.text, (prompt, text))  # a text has one goal: that of its first answer
        pairs = list(goals.values())
        others = [p for kind in self.preserve for p in concept.prompts(kind, "fit")]
        if not others:
            raise ValueError(f"memit: {concept.name!r} has no fit prompts in {', '.join(self.preserve)} to keep")
        deltas: dict[str, Delta] = {}
        shares: dict[str, list[float]] = {"loss": [], "gap_left": []}
        if self.strength:
            prompts, places = [p for p, _ in pairs], last_of_subject(subject, [p for p, _ in pairs])
            preferred = preferred_pairs(pairs, self.instead, self.name)
            values = [subject.sites("mlp_value")[layer] for layer in layers]
            if any(subject.write_of(site).norm for site in values):
                offsets, losses = self.search.run(subject, [given(site) for site in values], preferred, places)
                deltas, left = self.given(subject, layers, prompts, places, offsets, others)
            else:
                goal, losses = self.wanted(subject, subject.sites("resid")[layers[-1]], preferred, places)
                deltas, left = self.written(subject, layers, prompts, places, goal, others)
            refuse_gap(
                self.name, left, layers, f"lower `lam` ({self.lam:g}), keep fewer prompts, or edit other `layers`"
            )
            deltas = {where: delta.scaled(self.strength) for where, delta in deltas.items()}
            shares = {"loss": loss_at_ends(losses), "gap_left": [left]}
        return self.edit(subject, concept, deltas, layers=list(layers), **shares)

    def weight(self, keys: Tensor) -> float:
        """λ of the solve for keys (n, h)."""
        return weight_of_solve(self.lam, keys, of_sum=self.lam_of_sum)

    @property
    def search(self) -> OffsetSearch:
        """How offsets are searched for."""
        return OffsetSearch(self.steps, self.rate, self.decay, self.most)

    def wanted(
        self, model: CausalLMSubject, site: Site, pairs: Sequence[AnswerPair], places: Tensor
    ) -> tuple[Tensor, list[float]]:
        """z = h + δ (n, d) float64: what `site` should give at `places`; and the loss of each step."""
        begun = at_places(model, site, [p for p, _ in pairs], places)
        offsets, losses = self.search.run(model, [site], pairs, places)
        return begun.double() + offsets[site], losses

    def written(
        self, model: CausalLMSubject, layers: Sequence[int], prompts: Sequence[Prompt], places: Tensor, goal: Tensor,
        others: Sequence[Prompt],
    ) -> tuple[dict[str, Delta], float]:  # fmt: skip
        """The edit, first layer first, each closing its share of the gap that is left; and the share left in the end."""
        end, base = model.sites("resid")[layers[-1]], model.weight_hash()
        deltas: dict[str, Delta] = {}
        whole = float(torch.linalg.matrix_norm(goal - at_places(model, end, prompts, places).double()))
        for i, layer in enumerate(layers):
            hidden, value = model.sites("mlp_hidden")[layer], model.sites("mlp_value")[layer]
            with Edit(self.name, "", deltas, base).on(model):
                keys = at_places(model, hidden, prompts, places)
                gap = goal - at_places(model, end, prompts, places).double()
                with torch.no_grad():
                    x, read = read_site(model, hidden, others)
            share = gap / (len(layers) - i) / model.write_of(value).scale
            solved = solve_key_values(keys, share, x[after_first_token(read)], self.weight(keys))
            wide = dtype_of(find_parameter(model.components, address(value)))
            deltas[address(value)] = LowRank(solved.u.to(wide), solved.v.to(wide), model.orientation(value))
        with Edit(self.name, "", deltas, base).on(model):
            left = torch.linalg.matrix_norm(goal - at_places(model, end, prompts, places).double())
        return deltas, float(left) / (whole or 1.0)

    def given(
        self, model: CausalLMSubject, layers: Sequence[int], prompts: Sequence[Prompt], places: Tensor,
        offsets: dict[Site, Tensor], others: Sequence[Prompt],
    ) -> tuple[dict[str, Delta], float]:  # fmt: skip
        """As `written`, where norms stand between the matrices and the stream: each matrix gives its own offset besides.

        Most changes of the stream lie beyond what a norm lets through. What the matrices can give is wanted of them, all
        together, so that it can be reached: with the edits of the blocks below, each reads what it read in the search.
        """
        end, base = model.sites("resid")[layers[-1]], model.weight_hash()
        goal = with_offsets(model, end, prompts, places, offsets)
        whole = float(torch.linalg.matrix_norm(goal - at_places(model, end, prompts, places).double()))
        deltas: dict[str, Delta] = {}
        for layer in layers:
            hidden, value = model.sites("mlp_hidden")[layer], model.sites("mlp_value")[layer]
            with Edit(self.name, "", deltas, base).on(model), torch.no_grad():
                keys = at_places(model, hidden, prompts, places)
                x, read = read_site(model, hidden, others)
            solved = solve_key_values(keys, offsets[given(value)], x[after_first_token(read)], self.weight(keys))
            wide = dtype_of(find_parameter(model.components, address(value)))
            deltas[address(value)] = LowRank(solved.u.to(wide), solved.v.to(wide), model.orientation(value))
        with Edit(self.name, "", deltas, base).on(model):
            left = torch.linalg.matrix_norm(goal - at_places(model, end, prompts, places).double())
        return deltas, float(left) / (whole or 1.0)


def given(matrix: Site) -> Site:
    """The output of a down projection, before any norm."""
    return Site(matrix.component, matrix.path)
