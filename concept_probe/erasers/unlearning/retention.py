"""What keeps a language model's answers to other prompts while those of a concept are unlearned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.unlearning.answer_sets import answer_pairs, batch_pairs, batch_rows
from concept_probe.erasers.unlearning.losses import divergence, nll
from concept_probe.types import Concept, Kind

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

RetainLoss = Literal["nll", "kl"]
"""`nll`, likelihood of the right answers; `kl`, divergence of the next token from the reference's."""


@dataclass(frozen=True)
class Retention:
    """The retain term of an unlearner's loss."""

    weight: float
    """0: there is none."""
    loss: RetainLoss
    kinds: Sequence[Kind]
    """Lists of the concept's other prompts (fit split); for `nll` those of them that have answers."""
    batch: int
    """Prompts per step."""

    def terms(self, model: CausalLMSubject, concept: Concept, method: str) -> tuple[DrawnLoss, ...]:
        """The retain term, none at weight 0; the model as it is now is the reference.

        Raises ValueError where there is nothing to keep.
        """
        if not self.weight:
            return ()
        pairs = answer_pairs(concept, self.kinds)
        prompts = [p for kind in self.kinds for p in concept.prompts(kind, "fit")]
        if not (pairs if self.loss == "nll" else prompts):
            raise ValueError(
                f"{method}: {concept.name!r} has no fit prompts in {', '.join(self.kinds)} to keep"
                f"{' answers of' if self.loss == 'nll' else ''}; give it some, or set `retain=0`"
            )
        if self.loss == "nll":

            def likely(generator: torch.Generator) -> Tensor:
                chosen = batch_pairs(pairs, self.batch, generator)
                return self.weight * nll(model.log_probs(chosen, batch=self.batch).mean)

            return (likely,)
        before = model.next_logits(prompts).detach()

        def near(generator: torch.Generator) -> Tensor:
            rows = batch_rows(len(prompts), self.batch, generator)
            now = model.next_logits([prompts[i] for i in rows], batch=self.batch)
            return self.weight * divergence(now, before[rows])

        return (near,)
