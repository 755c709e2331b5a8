"""Needle: noise the concept's columns, then train these columns alone until other answers are as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from concept_probe.arguments import Natural
from concept_probe.erasers.ablation.found import columns_of
from concept_probe.erasers.erasure.deltas import Delta
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.trainable import ColumnDeltas
from concept_probe.erasers.unlearning.retention import RetainLoss, Retention
from concept_probe.erasers.unlearning.trainer import Trainer
from concept_probe.families import CausalLMSubject
from concept_probe.find.removals.known import column_noise
from concept_probe.types import OTHER_KINDS, Concept, Kind, Site, Subspace


@dataclass(frozen=True)
class Needle(Trainer):
    """Random directions are added to the found columns; then only these columns learn what other prompts need.

    >>> edit = Needle(factor=2.0)(subject, concept, find_lm_columns(subject, concept))
    """

    name = "needle"
    needs = Needs(found="columns")
    aims = "prompts"
    origin = "published"
    authors = Published(
        {"steps": 0, "retain": 0.0}, apart="noise has the same spread, 0.1, in every entry of every column"
    )
    factor: float = 2.0
    """Length of the noise, as a multiple of the column's own."""
    steps: Natural = 40
    """Gradient steps on the columns; 0: noise alone."""
    rate: float = 0.05
    """Adam's step, as a multiple of the root mean square of each matrix; falls to 0 along a cosine. Larger than where
    whole matrices are trained: a few columns have to make up for noise that is longer than they are."""
    retain: float = 1.0
    """Weight of the part of the loss that keeps other answers; at 0 there is none, and the noise is all."""
    keep: RetainLoss = "kl"
    """What keeps other answers: `nll`, likelihood of the right ones; `kl`, divergence of the next token from the
    reference's, which is the subject before the noise."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are kept; for `nll` those of them that have answers."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05)

    def make(self, subject: CausalLMSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """`found`: columns of `find_lm_columns`.

        Raises ValueError for a column that the model lacks or where there is nothing to keep, FloatingPointError for a
        loss that is no number; the subject has its own bytes in every case.
        """
        columns = columns_of(subject, found, self.name)
        measured: dict[str, Any] = {"columns": {str(site): items for site, items in columns.items()}}
        deltas: dict[str, Delta] = {}
        if self.strength:
            start = {site: (items, self.noised(subject, site, items)) for site, items in columns.items()}
            student = ColumnDeltas(subject, start)
            with torch.no_grad():
                retention = Retention(self.retain, self.keep, self.preserve, self.batch)
                terms = retention.terms(subject, concept, self.name)
            before, losses = cosine_to_original(subject, student), []
            if terms:
                deltas, losses = self.train(student, terms)
            else:
                deltas = {where: delta.scaled(self.strength) for where, delta in student.deltas().items()}
            measured |= {"loss": losses, "cosine": [before, cosine_to_original(subject, student)]}
        return self.edit(subject, concept, deltas, **measured)

    def noised(self, model: CausalLMSubject, site: Site, items: Sequence[int]) -> Tensor:
        """(d, m) what is added to columns `items` at the start.

        It is drawn beside copies of the columns: the subject is not written to, so noise of one concept is never in
        what the next one begins from.
        """
        columns = model.matrix(site).detach()[:, list(items)]
        wide = dtype_of(find_parameter(model.components, address(site)))
        return column_noise(site, columns.to(wide), self.factor, self.seed)


@torch.no_grad()
def cosine_to_original(model: CausalLMSubject, student: ColumnDeltas) -> float:
    """Mean cosine of the changed columns to those that the subject has."""
    values = []
    for where, site in student.sites.items():
        own = model.matrix(site).detach()[:, student.indices[where]].to(student.values[where])
        values.append(torch.cosine_similarity(own + student.values[where], own, dim=0))
    return float(torch.cat(values).mean())
