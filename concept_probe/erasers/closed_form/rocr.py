"""ROCR: at the concept's name, blocks give what they give at another name, by one key for all phrasings (arXiv 2506.07795)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.arguments import Nonnegative
from concept_probe.erasers.closed_form.destinations import renamed, texts_of
from concept_probe.erasers.closed_form.null_space import left_to_edit
from concept_probe.erasers.closed_form.solve import left_over
from concept_probe.erasers.closed_form.subject_keys import at_places, edited_blocks, last_of_subject, refuse_gap
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.deltas import Delta, LowRank, Sum
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.published import Published
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.families import CausalLMSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Site, Subspace


def redirected(
    keys: Float[Tensor, "n h"], wanted: Float[Tensor, "n d"], projector: Float[Tensor, "h h"],
    earlier: Float[Tensor, "h h"], lam: float,
) -> tuple[LowRank, dict[str, float]]:  # fmt: skip
    """ΔW with ΔWᵀ = (P (KᵀK + C) + λI)⁻¹ P Kᵀ R, float64: rows of R are wanted at rows of K, nothing where P takes it to 0.

    C (`earlier`) is Σ k kᵀ over keys that earlier edits moved, which this one leaves alone. With it, how well it was solved:
    condition and residual. Raises ValueError where λ is not positive.
    """
    if not lam > 0:
        raise ValueError(f"rocr: lam is {lam}; it is the weight of a small change and must be positive")
    moment = projector @ (keys.mT @ keys + earlier)
    moment.diagonal().add_(lam)
    right = projector @ keys.mT
    v = torch.linalg.solve(moment, right)
    values = torch.linalg.svdvals(moment)
    solved = {"condition": float(values[0] / values[-1]), "residual": left_over(moment @ v, right)}
    return LowRank(wanted.mT.contiguous(), v), solved


@dataclass(frozen=True)
class Rocr(Eraser[CausalLMSubject, Edit]):
    """At the last token of the concept's name, blocks give what they give at another name, in every phrasing.

    >>> edit = Rocr(guide="Brazil")(subject, concept)
    >>> edit = Rocr().together(subject, [japan, brazil])      # one after the other, the first ones held
    """

    name = "rocr"
    makes = "edit"
    on = "texts"
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(
        {"eigenvalue": 0.02, "lam": 1.0, "absolute": True},
        apart="blocks are those of each model, 4 to 6 of Llama 3; kept keys are of 100,000 texts; phrasings are six beginnings of a "
        "chat with the bare name, the other name is read in the first of them alone, and what a block gives so far in none",
    )
    guide: str | None = None
    """The name that stands in, best an unrelated one; None: that of the concept's first anchor, or of its first neighbour."""
    layers: tuple[int, ...] = ()
    """Blocks whose down projections are edited, rising; empty: the four up to the middle. Later tokens read what stands
    at the name, so the last one of them must have blocks above it."""
    sources: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) whose phrasings are redirected, those that name their subject."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose keys are kept, all of their tokens but the first; so are those of the
    phrasings with the other name."""
    null: float = 0.03
    """Share of the kept keys' energy that the directions left for the edit may hold; see `Speed`."""
    lam: float = 0.1
    """λ, as a multiple of what the mean edited key has of |k|² in these directions."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is solved."""
    each: bool = False
    """Whether every phrasing has a key of its own; else they have one, their mean, and the edit has rank one, as published."""
    eigenvalue: Nonnegative | None = None
    """In place of `null`: directions that the kept keys' mean moment gives less than this are left for the edit, as published,
    0.02. Only as good as the scale of the keys."""
    absolute: bool = False
    """Whether `lam` is λ itself, as published."""

    def make(self, subject: CausalLMSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """Raises ValueError where no fit prompt names its subject, there is no other name or nothing to keep, for a layer that
        the model lacks, where kept keys leave no direction, and for an edit that leaves nearly all of the way to the other name.
        """
        return self._redirected(subject, (concept,))

    def make_together(self, subject: CausalLMSubject, whole: Concept, found: tuple[Subspace, ...]) -> Edit:
        """One after the other: keys that are moved already stay as they were led."""
        return self._redirected(subject, whole.parts)

    def _redirected(self, subject: CausalLMSubject, concepts: Sequence[Concept]) -> Edit:
        walk = Walk(self, subject, edited_blocks(subject, self.layers, self.name))
        guides, led = [], {}
        for concept in concepts:
            asked = self.asked(concept)
            guides.append(asked.guide)
            led |= texts_of(asked.led)
            if self.strength:
                walk.add(asked)
        deltas = {where: delta.scaled(self.strength) for where, delta in walk.deltas.items()}
        measured = {
            "guide": ", ".join(dict.fromkeys(guides)), "layers": list(walk.layers), "solved": walk.solved, "guides": led,
            "gap_left": walk.gaps,
        }  # fmt: skip
        return Edit(self.name, "+".join(c.name for c in concepts), deltas, subject.weight_hash(), measured)

    def asked(self, concept: Concept) -> Redirection:
        """What is redirected of a concept, and what is kept. Raises ValueError where there is none of either."""
        edited = [p for kind in self.sources for p in concept.prompts(kind, "fit") if p.subject]
        others = [p for kind in self.preserve for p in concept.prompts(kind, "fit")]
        if not edited or not others:
            raise ValueError(
                f"rocr: {concept.name!r} needs fit prompts that name their subject in {', '.join(self.sources)}, found "
                f"{len(edited)}, and some in {', '.join(self.preserve)} to keep, found {len(others)}"
            )
        guide = self.other_name(concept)
        return Redirection(guide, {prompt: renamed(prompt, guide) for prompt in edited}, others)

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

    def projector(self, kept: Float[Tensor, "m h"]) -> Float[Tensor, "h h"]:
        """Onto the directions that are left for the edit. Raises ValueError where there is none."""
        return left_to_edit(kept, self.null, self.eigenvalue, f"rocr: {len(kept)} kept keys")


@dataclass(frozen=True)
class Redirection:
    """What is asked of one concept."""

    guide: str
    led: Mapping[Prompt, Prompt]
    """Each phrasing, with the same one that says the other name."""
    others: Sequence[Prompt]


@dataclass
class Walk:
    """Edits of some blocks, first to last, concept after concept, each with those before it in place."""

    eraser: Rocr
    model: CausalLMSubject
    layers: tuple[int, ...]
    deltas: dict[str, Delta] = field(default_factory=dict)
    solved: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per matrix: condition, residual, and how far kept keys' values went relative to their size."""
    gaps: list[float] = field(default_factory=list)
    """Per concept: the share left of the way to what blocks give at the other name."""
    earlier: dict[int, Tensor] = field(default_factory=dict)
    """Per block: Σ k kᵀ over the keys of earlier concepts."""

    def add(self, asked: Redirection) -> None:
        """Redirect one more concept."""
        model, name = self.model, self.eraser.name
        own, others = list(asked.led), list(asked.led.values())
        places, end = last_of_subject(model, own), model.sites("resid")[self.layers[-1]]
        base = model.weight_hash()
        with Edit(name, "", self.deltas, base).on(model):
            goal = self._rows(at_places(model, end, others, last_of_subject(model, others)))
            begun = self._rows(at_places(model, end, own, places))
        matrices = [model.sites("mlp_value")[layer] for layer in self.layers]
        normed = any(model.write_of(matrix).norm for matrix in matrices)
        for i, (layer, value) in enumerate(zip(self.layers, matrices, strict=True)):
            hidden = model.sites("mlp_hidden")[layer]
            with Edit(name, "", self.deltas, base).on(model):
                keys = self._rows(at_places(model, hidden, own, places))
                if normed:  # most changes of the stream lie beyond what the norm lets through
                    wanted = self._of_outputs(value, own, others)
                else:
                    now = self._rows(at_places(model, end, own, places))
                    wanted = (goal - now) / (len(self.layers) - i) / model.write_of(value).scale
                kept = self._kept(hidden, (*asked.others, *others))
            self._write(layer, value, keys, wanted, kept)
        with Edit(name, "", self.deltas, base).on(model):
            left = goal - self._rows(at_places(model, end, own, places))
            for layer in self.layers:
                keys = self._rows(at_places(model, model.sites("mlp_hidden")[layer], own, places))
                self.earlier[layer] = self.earlier.get(layer, 0.0) + keys.mT @ keys
        whole = float(torch.linalg.matrix_norm(goal - begun)) or 1.0
        self.gaps.append(float(torch.linalg.matrix_norm(left)) / whole)
        refuse_gap(name, self.gaps[-1], self.layers, "lower `lam`, raise `null`, or keep fewer prompts")

    def _write(self, layer: int, value: Site, keys: Tensor, wanted: Tensor, kept: Tensor) -> None:
        eraser, where = self.eraser, address(value)
        projector = eraser.projector(kept)
        size = 1.0 if eraser.absolute else float((keys @ projector * keys).sum(1).mean())
        earlier = self.earlier.get(layer, torch.zeros_like(projector))
        found, solved = redirected(keys, wanted, projector, earlier, eraser.lam * size)
        matrix = self.model.matrix(value).detach().double()
        drift = torch.linalg.matrix_norm(kept @ found.v @ found.u.mT) / torch.linalg.matrix_norm(kept @ matrix.mT)
        self.solved[str(value)] = {
            **solved,
            "preserved_drift": float(drift),
            "directions": round(float(projector.trace())),
        }
        wide = dtype_of(find_parameter(self.model.components, where))
        delta = LowRank(found.u.to(wide), found.v.to(wide), self.model.orientation(value))
        self.deltas[where] = Sum((self.deltas[where], delta)) if where in self.deltas else delta

    def _rows(self, x: Tensor) -> Tensor:
        """Rows (n, d) of phrasings as they are solved for: one each, or their mean; float64."""
        return x.double() if self.eraser.each else x.double().mean(0, keepdim=True)

    def _of_outputs(self, value: Site, own: Sequence[Prompt], others: Sequence[Prompt]) -> Tensor:
        """What a matrix gives at the other name less what it gives at the concept's."""
        site = Site(value.component, value.path)
        given = (at_places(self.model, site, ps, last_of_subject(self.model, ps)) for ps in (others, own))
        goal, now = (self._rows(x) for x in given)
        return goal - now

    @torch.no_grad()
    def _kept(self, hidden: Site, prompts: Sequence[Prompt]) -> Tensor:
        """(m, h) what the matrix reads of kept prompts, all of their tokens but the first, float64."""
        distinct = list(
            {(p.text, p.form): p for p in prompts}.values()
        )  # one may be kept, and said with the other name
        parts = [read_site(self.model, hidden, distinct[i : i + 32]) for i in range(0, len(distinct), 32)]
        return torch.cat([x[after_first_token(read)] for x, read in parts]).double()
