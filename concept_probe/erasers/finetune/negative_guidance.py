"""The opposite of what a concept's prompt makes a denoiser predict: the goal of ESD and of those that build on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from concept_probe.erasers.closed_form.destinations import destinations_of
from concept_probe.erasers.finetune.distillation import DistillationTerm, same_prompt
from concept_probe.erasers.training.replay import LatentBuffer, null_predictions, predictions
from concept_probe.types import Concept, Prompt

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject

GuidanceBase = Literal["empty", "anchor"]
"""What the opposite is reckoned from: the empty prompt, as in the papers, or the anchor that it is paired with.

A model may draw the concept unasked; then the empty prompt leads back to it.
"""


def negative_guidance_term(
    subject: DiffusionSubject, concept: Concept, prompts: Sequence[Prompt], eta: float, base: GuidanceBase, method: str
) -> DistillationTerm:
    """The term that each of the concept's `prompts` is answered with its opposite.

    Raises ValueError where the anchor is to be the base and the concept has none.
    """
    bases = destinations_of(prompts, concept, None, method) if base == "anchor" else None
    return DistillationTerm(
        tuple(prompts), same_prompt, lambda buffer: negative_guidance_target(subject, buffer, eta, bases)
    )


def negative_guidance_target(
    subject: DiffusionSubject, buffer: LatentBuffer, eta: float, bases: Mapping[Prompt, Prompt] | None = None
) -> Tensor:
    """ε(x, b) - η [ε(x, c) - ε(x, ∅)] of each latent of a buffer (n, c, h, w): c the prompt it is of, b its base.

    The base is ∅ unless `bases` names another for each prompt. Source: arXiv 2303.07345.
    """
    empty = null_predictions(subject, buffer)
    start = empty if bases is None else predictions(subject, buffer, [bases[p] for p in buffer.prompts])
    return start - eta * (predictions(subject, buffer, buffer.prompts) - empty)


def taken_out_term(subject: DiffusionSubject, prompts: Sequence[Prompt], text: str, eta: float) -> DistillationTerm:
    """The term that a text f is answered without the concept: ε(x, f) - η [ε(x, c) - ε(x, ∅)] at latents of f, each of
    `prompts` c in turn.
    """

    def target(buffer: LatentBuffer) -> Tensor:
        own = [prompts[i % len(prompts)] for i in range(len(buffer))]
        away = predictions(subject, buffer, own) - null_predictions(subject, buffer)
        return predictions(subject, buffer, buffer.prompts) - eta * away

    return DistillationTerm((Prompt(text),), same_prompt, target)
