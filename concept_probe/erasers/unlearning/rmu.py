"""Representation misdirection: what one layer says of the concept is led to a random direction (arXiv 2403.03218)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.activations.tap import tap
from concept_probe.detect.answers import continuation
from concept_probe.erasers.finetune.trainable import Student
from concept_probe.erasers.unlearning.losses import distance
from concept_probe.erasers.unlearning.trainer import Pair, Term, Unlearner, draw, named_modules, whole
from concept_probe.types import OTHER_KINDS, Concept, Kind, Moment, Prompt, Site, unit

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject


@dataclass(frozen=True)
class Rmu(Unlearner):
    """Activations of the concept's texts at one layer become c·u, those of other texts stay as they are.

    >>> edit = Rmu(layer=10, scale=2.0)(subject, concept)
    """

    name: ClassVar[str] = "rmu"
    rank: int | None = None
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
        return tuple(s for s in named_modules(model, self.modules, self.name) if s.path.startswith(blocks))

    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[Pair]
    ) -> tuple[Term, ...]:
        site = model.sites("resid")[self.at(model)]
        texts = [whole(pair) for pair in forget]
        x, read = states(model, site, texts[: self.batch])
        later = read & after_first(read)
        if not later.any():
            raise ValueError("rmu: every text is one token long, and the first token of a text is left as it is")
        norm = float(torch.linalg.vector_norm(x[later].float(), dim=-1).mean())
        drawn = torch.rand(x.shape[-1], generator=torch.Generator().manual_seed(self.seed))
        goal = self.scale * norm * unit(drawn).to(x.device)

        def lead(generator: torch.Generator) -> Tensor:
            x, read = states(model, site, [texts[i] for i in draw(len(texts), self.batch, generator)])
            read = read & after_first(read)
            some = read.any(1)
            return distance(x[some].float(), goal, read[some]) / norm**2

        kept = texts_of(concept, self.preserve)
        if not self.retain:
            return (lead,)
        if not kept:
            raise ValueError(
                f"rmu: {concept.name!r} has no fit prompts in {', '.join(self.preserve)} to keep; give it some, or set "
                "`retain=0`"
            )
        return lead, held(model, student, site, kept, self.batch, self.retain / norm**2)


def texts_of(concept: Concept, kinds: Sequence[Kind]) -> list[Prompt]:
    """The fit prompts of these kinds, with their answers where they have some."""
    prompts = [p for kind in kinds for p in concept.prompts(kind, "fit")]
    return [whole((p, continuation(p, p.answers[0]))) if p.answers else p for p in prompts]


def held(
    model: CausalLMSubject, student: Student, site: Site, texts: Sequence[Prompt], batch: int, weight: float
) -> Term:
    """`weight` times how far activations of texts at `site` are from the reference's (`distance`)."""

    def stay(generator: torch.Generator) -> Tensor:
        chosen = [texts[i] for i in draw(len(texts), batch, generator)]
        with student.reference(), torch.no_grad():
            before, _ = states(model, site, chosen)
        now, read = states(model, site, chosen)
        return weight * distance(now.float(), before.float(), read)

    return stay


def states(model: CausalLMSubject, site: Site, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Activations (b, t, d) at `site`, and where (b, t) a text is and not what fills the batch."""
    seen: list[tuple[Tensor, Moment]] = []
    with tap(model, {site: lambda x, m: seen.append((x, m))}), model.stop_after([site]):
        model.encode(prompts, batch=len(prompts))
    x, moment = seen[0]
    if moment.places is None:
        raise RuntimeError(f"{model.name} does not say which positions only fill the batch")
    return x, moment.places >= 0


def after_first(read: Tensor) -> Tensor:
    """(b, t): all but each row's first position.

    Attention rests on the first token of any text, whose activations are tens of times as long as others: leading
    them anywhere would break every text.
    """
    return read.cumsum(1) > 1
