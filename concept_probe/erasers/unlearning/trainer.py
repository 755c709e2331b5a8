"""Unlearning by gradients for causal language models: what the methods share.

Every method trains a student (low-rank adapters, or whole matrices) on answers to the concept's prompts, mostly
together with answers that are to be kept. The subject outside the student is the frozen reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch

from concept_probe.arguments import Count, SeedNumber
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.deltas import Delta
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.training.loop import DrawnLoss, descend, loss_at_ends
from concept_probe.erasers.training.trainable import FullWeights, LowRankAdapters, Student
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, answer_pairs
from concept_probe.erasers.unlearning.costs import told
from concept_probe.erasers.unlearning.retention import RetainLoss, Retention
from concept_probe.families import CausalLMSubject
from concept_probe.registry import UnknownName
from concept_probe.types import OTHER_KINDS, Concept, Kind, Site, Subspace

EVERY_MATRIX = "all parameters are trained, by AdamW at 1e-5 for every entry, in ten passes over the texts"
"""What no option of theirs gives, of methods as the collection open-unlearning runs them."""


@dataclass(frozen=True)
class Trainer(Eraser[CausalLMSubject, Edit], ABC):
    """Options of every method that trains, and the way from a loss to the change of the weights."""

    makes = "edit"
    on = "texts"
    steps: Count = 60
    """Gradient steps."""
    batch: Count = 8
    """Answers per step, of the concept and again of what is kept."""
    rate: float = 0.02
    """Adam's step, as a multiple of the root mean square of each matrix; falls to 0 along a cosine."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""
    seed: SeedNumber = 0
    """Of everything that is drawn."""

    @final
    def train(self, student: Student, terms: Sequence[DrawnLoss]) -> tuple[dict[str, Delta], list[float]]:
        """What the student becomes where the sum of the terms is least, times `strength`; and the loss at both ends.

        Raises FloatingPointError for a loss that is no number.
        """
        losses = descend(
            student,
            lambda _, generator: torch.stack([term(generator) for term in terms]).sum(),
            steps=self.steps,
            rate=self.rate,
            generator=torch.Generator().manual_seed(self.seed),
            method=self.name,
        )
        return {where: delta.scaled(self.strength) for where, delta in student.deltas().items()}, loss_at_ends(losses)


@dataclass(frozen=True)
class Unlearner(Trainer, ABC):
    """Unlearns answers with adapters, or with whole matrices."""

    needs = Needs(answers=True)
    sources: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) whose answers are unlearned."""
    rank: Count | None = 8
    """Rank of the adapters beside each matrix; None trains whole matrices."""
    modules: tuple[str, ...] = ()
    """Last names of the matrices inside the blocks that are trained, such as `q_proj`; none: all down projections."""

    @final
    def make(self, subject: CausalLMSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """Raises FloatingPointError for a loss that is no number; the subject has its own bytes in every case.

        Warns where right answers about neighbours fall further than those about the target, see `costs`.
        """
        deltas: dict[str, Delta] = {}
        losses: list[float] = []
        if self.strength:
            student = self._student(subject)
            with torch.no_grad():
                terms = self.terms(subject, student, concept, answer_pairs(concept, self.sources))
            deltas, losses = self.train(student, terms)
        edit = self.edit(subject, concept, deltas, loss=losses, trained=len(deltas))
        mend = "keep more (`retain`, keep='nll'), or train longer and choose the strength by what is kept (choose_strength)"
        fell = told(subject, edit, concept, mend) if deltas else {}
        return replace(edit, made_by={**edit.made_by, **fell})

    def _student(self, model: CausalLMSubject) -> Student:
        sites = self.sites(model)
        if self.rank is None:
            return FullWeights(model, [address(site) for site in sites])
        return LowRankAdapters(model, sites, self.rank, self.seed)

    @abstractmethod
    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        """The matrices that are trained."""

    @abstractmethod
    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[AnswerPair]
    ) -> tuple[DrawnLoss, ...]:
        """The parts of the loss. It is called before training: what is measured in it is the frozen reference's."""


@dataclass(frozen=True)
class RetainingUnlearner(Unlearner, ABC):
    """An unlearner that also keeps answers to other prompts."""

    retain: float = 1.0
    """Weight of the part of the loss that keeps other answers; at 0 there is none."""
    keep: RetainLoss = "nll"
    """What keeps them: `nll`, likelihood of the right answers; `kl`, divergence of the next token from the reference's."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are kept; for `nll` those of them that have answers."""

    @final
    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        return block_matrices(model, self.modules, self.name)

    @final
    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[AnswerPair]
    ) -> tuple[DrawnLoss, ...]:
        retention = Retention(self.retain, self.keep, self.preserve, self.batch)
        return (self.forget_term(model, forget), *retention.terms(model, concept, self.name))

    @abstractmethod
    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        """The part of the loss that unlearns, made before training."""


def block_matrices(model: CausalLMSubject, names: Sequence[str], method: str) -> tuple[Site, ...]:
    """The weights of every matrix inside the blocks whose last name is one of `names`; all down projections for none.

    Raises UnknownName for a name that no matrix has.
    """
    if not names:
        return model.sites("mlp_value")
    (component,) = model.components
    inside = tuple(block.block + "." for block in model.layout.blocks)
    paths = [
        p for p, m in model.model.named_modules() if p.startswith(inside) and getattr(m, "weight", None) is not None
    ]
    matrices = [p for p in paths if model.model.get_submodule(p).weight.ndim == 2]
    known = dict.fromkeys(p.rpartition(".")[2] for p in matrices)
    for name in names:
        if name not in known:
            raise UnknownName("module", name, known, f"{method} trains matrices inside the blocks of {model.name}")
    return tuple(Site(component, p, "weight") for p in matrices if p.rpartition(".")[2] in names)
