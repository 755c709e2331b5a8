"""Hidden states of a language model where texts are read, and the term that keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.training.trainable import Student
from concept_probe.erasers.unlearning.answer_sets import batch_rows
from concept_probe.erasers.unlearning.losses import distance
from concept_probe.types import Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject


def retain_activations(
    model: CausalLMSubject, student: Student, site: Site, texts: Sequence[Prompt], batch: int, weight: float
) -> DrawnLoss:
    """`weight` times how far activations of texts at `site` are from the reference's (`distance`)."""

    def stay(generator: torch.Generator) -> Tensor:
        chosen = [texts[i] for i in batch_rows(len(texts), batch, generator)]
        with student.reference(), torch.no_grad():
            before, _ = read_site(model, site, chosen)
        now, read = read_site(model, site, chosen)
        return weight * distance(now.float(), before.float(), read)

    return stay


def after_first_token(read: Tensor) -> Tensor:
    """(b, t): the positions that are `read` (b, t), but the first of each row.

    Attention rests on the first token of any text, whose activations are tens of times as long as others: leading
    them anywhere would break every text.
    """
    return read & (read.cumsum(1) > 1)
