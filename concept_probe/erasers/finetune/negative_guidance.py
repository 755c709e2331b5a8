"""The opposite of what a concept's prompt makes a denoiser say: the goal of ESD and of those that build on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from concept_probe.erasers.closed_form.destinations import guides_of, nearest
from concept_probe.erasers.finetune.distillation import Lesson, same
from concept_probe.erasers.finetune.replay import Pool, predictions
from concept_probe.registry import look_up
from concept_probe.types import Concept, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject

Base = Literal["empty", "anchor"]
"""What an opposite is reckoned from: the empty prompt, as in the papers, or the anchor that shares most words.

A model may draw the concept unasked; then the empty prompt leads back to it.
"""


def away(subject: Subject, concept: Concept, moved: Sequence[Prompt], eta: float, base: Base, method: str) -> Lesson:
    """The lesson that each of `moved` is answered with its opposite.

    Raises UnknownName for another base, ValueError where the anchor is to be one and the concept has none.
    """
    look_up(dict.fromkeys(get_args(Base)), base, "base of an opposite", f"for {method}")
    bases = nearest(moved, guides_of(moved, concept, None, method)) if base == "anchor" else None
    return Lesson(tuple(moved), same, lambda pool: opposite(subject, pool, eta, method, bases))


def opposite(
    subject: Subject, pool: Pool, eta: float, method: str, bases: Mapping[Prompt, Prompt] | None = None
) -> Tensor:
    """ε(x, b) - η [ε(x, c) - ε(x, ∅)] of each latent of a pool: (n, c, h, w), c the prompt of its walk, b its base.

    The base is ∅ unless `bases` names another for each prompt. Source: arXiv 2303.07345.
    """
    empty = predictions(subject, pool, [Prompt("")] * len(pool), method)
    start = empty if bases is None else predictions(subject, pool, [bases[p] for p in pool.prompts], method)
    return start - eta * (predictions(subject, pool, pool.prompts, method) - empty)
