"""Representation misdirection: what one layer says of the concept is led to a random direction (arXiv 2403.03218)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.arguments import Count
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.training.trainable import Student
from concept_probe.erasers.unlearning.activations import after_first_token, retain_activations
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, as_text, batch_rows, texts_with_answers
from concept_probe.erasers.unlearning.losses import distance
from concept_probe.erasers.unlearning.trainer import Unlearner, block_matrices
from concept_probe.families import CausalLMSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Site, unit


@dataclass(frozen=True)
class Rmu(Unlearner):
    """Activations of the concept's texts at one layer become c·u, those of other texts stay as they are.

    >>> edit = Rmu(layer=10, scale=2.0)(subject, concept)
    """

    name = "rmu"
    aims = "prompts"
    origin = "published"
    authors = Published(
        {"layer": 7, "retain": 1200.0, "steps": 150, "batch": 4},
        read_in="memory",
        apart="c is a number of each model, 6.5 for Zephyr; AdamW at 5e-5 for every entry; texts are whole documents",
    )
    rank: Count | None = None
    """Rank of the adapters beside each matrix; None trains whole matrices, as the paper does."""
    layer: int | None = None
    """ℓ: the block whose output is led, counted from 0; None: a quarter of the way up, as in the paper's models."""
    below: int = 2
    """Blocks below ℓ that are trained too."""
    scale: float = 3.0
    """c, as a multiple of the mean norm of the layer's activations: their size differs from model to model."""
    retain: float = 10.0
    """α: weight of the part that keeps other texts."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose activations are kept, with their answers where they have some."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05)

    def at(self, model: CausalLMSubject) -> int:
        """ℓ. Raises ValueError for a block that the model lacks."""
        count = len(model.sites("resid"))
        layer = max(count // 4 - 1, 0) if self.layer is None else self.layer
        if not 0 <= layer < count:
            raise ValueError(f"rmu: layer is {layer}; {model.name} has blocks 0 to {count - 1}")
        return layer

    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        layer = self.at(model)
        blocks = tuple(b.block + "." for b in model.layout.blocks[max(layer - self.below, 0) : layer + 1])
        return tuple(s for s in block_matrices(model, self.modules, self.name) if s.path.startswith(blocks))

    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[AnswerPair]
    ) -> tuple[DrawnLoss, ...]:
        site = model.sites("resid")[self.at(model)]
        texts = [as_text(pair) for pair in forget]
        x, read = read_site(model, site, texts[: self.batch])
        later = after_first_token(read)
        if not later.any():
            raise ValueError("rmu: every text is one token long, and the first token of a text is left as it is")
        norm = float(torch.linalg.vector_norm(x[later].float(), dim=-1).mean())
        drawn = torch.rand(x.shape[-1], generator=torch.Generator().manual_seed(self.seed))
        goal = self.scale * norm * unit(drawn).to(x.device)

        def lead(generator: torch.Generator) -> Tensor:
            x, read = read_site(model, site, [texts[i] for i in batch_rows(len(texts), self.batch, generator)])
            read = after_first_token(read)
            some = read.any(1)
            return distance(x[some].float(), goal, read[some]) / norm**2

        kept = texts_with_answers(concept, self.preserve)
        if not self.retain:
            return (lead,)
        if not kept:
            raise ValueError(
                f"rmu: {concept.name!r} has no fit prompts in {', '.join(self.preserve)} to keep; give it some, or set "
                "`retain=0`"
            )
        return lead, retain_activations(model, student, site, kept, self.batch, self.retain / norm**2)
