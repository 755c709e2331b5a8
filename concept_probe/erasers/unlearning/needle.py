"""Needle: noise the concept's columns, then train these columns alone until other answers are as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from concept_probe.erasers.ablation.found import columns_of
from concept_probe.erasers.ablation.noise import column_noise
from concept_probe.erasers.erasure.deltas import Delta
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.erasers.finetune.trainable import SomeColumns
from concept_probe.erasers.unlearning.trainer import Keeping, language
from concept_probe.types import Concept, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject, Subject


@dataclass(frozen=True)
class Needle(Keeping):
    """Random directions are added to the found columns; then only these columns learn what other prompts need.

    >>> edit = Needle(factor=2.0)(subject, concept, find_lm_columns(subject, concept))
    """

    name: ClassVar[str] = "needle"
    factor: float = 2.0
    """Length of the noise, as a multiple of the column's own."""
    steps: int = 40
    """Gradient steps on the columns; 0: noise alone."""
    rate: float = 0.05
    """Adam's step, as a multiple of the root mean square of each matrix; falls to 0 along a cosine. Larger than where
    whole matrices are trained: a few columns have to make up for noise that is longer than they are."""
    keep: Literal["nll", "kl"] = "kl"
    """What keeps other answers: `nll`, likelihood of the right ones; `kl`, divergence of the next token from the
    reference's, which is the subject before the noise."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found`: columns of `find_lm_columns`.

        Raises TypeError for a subject that is no language model, ValueError where no column was found or there is
        nothing to keep, FloatingPointError for a loss that is no number; the subject has its own bytes in every case.
        """
        model = language(subject, self.name)
        columns = columns_of(model, found, self.name)
        origin: dict[str, Any] = {"columns": {str(site): items for site, items in columns.items()}}
        deltas: dict[str, Delta] = {}
        if self.strength:
            start = {site: (items, self.noised(model, site, items)) for site, items in columns.items()}
            student = SomeColumns(model, start)
            with torch.no_grad():
                terms = self.kept(model, concept)
            before, losses = alike(model, student), []
            if terms:
                deltas, losses = self.taught(student, terms)
            else:
                deltas = {where: delta.scaled(self.strength) for where, delta in student.deltas().items()}
            origin |= {"loss": losses, "cosine": [before, alike(model, student)]}
        return Edit(self.name, concept.name, deltas, subject.weight_hash(), made_by(self, subject, concept, **origin))

    def noised(self, model: CausalLMSubject, site: Site, items: Sequence[int]) -> Tensor:
        """(d, m) what is added to columns `items` at the start.

        It is drawn beside copies of the columns: the subject is not written to, so noise of one concept is never in
        what the next one begins from.
        """
        columns = model.matrix(site).detach()[:, list(items)]
        wide = dtype_of(find_parameter(model.components, address(site)))
        return column_noise(site, columns.to(wide), self.factor, self.seed)


@torch.no_grad()
def alike(model: CausalLMSubject, student: SomeColumns) -> float:
    """Mean cosine of the changed columns to those that the subject has."""
    values = []
    for where, site in student.sites.items():
        own = model.matrix(site).detach()[:, student.indices[where]].to(student.values[where])
        values.append(torch.cosine_similarity(own + student.values[where], own, dim=0))
    return float(torch.cat(values).mean())
