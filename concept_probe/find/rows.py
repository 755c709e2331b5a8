"""Activations of a concept's prompts, labelled: which rows are the concept's and which are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import CaptureOptions, read_rows
from concept_probe.families.text.kinds import NAMED_KINDS, kind_numbers
from concept_probe.types import (
    FORGET_KINDS,
    KINDS,
    OTHER_KINDS,
    Concept,
    Kind,
    Prompt,
    Query,
    Sampling,
    Site,
    Split,
    evenly,
)

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class ConceptRows:
    """n rows of one site, and where each comes from. All columns are (n,), long unless said."""

    x: Tensor
    """(n, d) float32"""
    concept: Tensor
    """bool: the prompt is one of the concept's (target, paraphrases, implicit)"""
    source: Tensor
    """index into types.KINDS: which of the concept's lists of prompts it is from"""
    kind: Tensor
    """index into types.TOKEN_KINDS; -1 for patches of a picture"""
    prompt: Tensor
    """index of the prompt"""
    step: Tensor
    """denoising step; -1 for text sites"""
    about: Tensor
    """number of what the prompt shows: equal for prompts of equal label (or subject, or text, where it has none)"""
    part: Tensor | None = None
    """number of the concept among several that are contrasted at once, whose prompt it is; None where it is one"""

    def select(self, keep: Tensor) -> ConceptRows:
        """The rows where `keep` (n,) bool is true."""
        columns = (self.x, self.concept, self.source, self.kind, self.prompt, self.step, self.about)
        return ConceptRows(*(column[keep] for column in columns), part=None if self.part is None else self.part[keep])

    def both_sides(self) -> list[tuple[Tensor, Tensor]]:
        """Per kind of token with rows on both sides: which rows (n,) are the concept's, and which are not.

        Of several concepts at once, per kind and concept: one's rows, and those that are of none.

        Raises ValueError where no kind has both: nothing can be contrasted then.
        """
        out = []
        for kind in self.kind.unique().tolist():
            here = self.kind == kind
            own, others = here & self.concept, here & ~self.concept
            parts = [own] if self.part is None else [own & (self.part == i) for i in self.part[own].unique().tolist()]
            out += [(part, others) for part in parts if part.any() and others.any()]
        if not out:
            raise ValueError("no kind of token has rows both of the concept and of other prompts")
        return out


@dataclass(frozen=True)
class RowQuery:
    """Which rows of a concept's prompts are read.

    >>> concept_rows(subject, concept, sites, "fit", RowQuery(limit=4))
    """

    kinds: Sequence[str] = NAMED_KINDS
    """Kinds of token, at sites of text tokens; empty for all rows. Where a subject reads forward, the first position of
    a text goes with the kind `bos`, whatever stands there: it says nothing but its own token, and is so long that it
    would decide every mean."""
    sources: Sequence[Kind] = KINDS
    """Lists of prompts."""
    limit: int | None = None
    """Most prompts of each list, evenly spaced; None for all. Sites in the denoising loop cost an image per prompt."""
    steps: Sequence[int] | None = None
    """Passes of the denoiser in which sites in the loop are read, as `Moment.step` counts them; None for all."""
    sampling: Sampling = Sampling()
    """How images are made for sites in the loop."""


def gather_prompts(
    concept: Concept, split: Split, sources: Sequence[Kind] = KINDS, *, limit: int | None = None
) -> list[tuple[Kind, Prompt]]:
    """The prompts of one split with the list each is from; at most `limit` of each list, evenly spaced.

    Raises ValueError where the concept's own prompts or the others are missing: nothing can be contrasted then.
    """
    out: list[tuple[Kind, Prompt]] = []
    for source in sources:
        prompts = concept.prompts(source, split)
        out.extend((source, p) for p in (prompts if limit is None else evenly(prompts, limit)))
    for what, side in (("of its own (target, paraphrases, implicit)", FORGET_KINDS), ("to compare with", OTHER_KINDS)):
        if not any(source in side for source, _ in out):
            lists = ", ".join(sources)
            raise ValueError(f"concept {concept.name!r} has no prompts {what} in split {split!r} among {lists}")
    return out


def concept_rows(
    subject: Subject, concept: Concept, sites: Sequence[Site], split: Split = "fit", which: RowQuery = RowQuery()
) -> dict[Site, ConceptRows]:
    """The rows of the concept's prompts of one split at `sites`.

    Text sites use the text-only path. Sites inside the denoising loop are captured while images are made from seed 0 of
    each prompt, conditional rows only. Raises UnknownName for a kind of token, ValueError as `gather_prompts` does.
    """
    kind_numbers(which.kinds)
    out: dict[Site, ConceptRows] = {}
    chosen = gather_prompts(concept, split, which.sources, limit=which.limit)
    text = [site for site in sites if subject.is_text(site)]
    loop = [site for site in sites if site not in text]
    if text:
        out |= _captured(subject, concept, split, chosen, [p for _, p in chosen], text, replace(which, steps=None))
    if loop:
        out |= _captured(subject, concept, split, chosen, [Query(p, 0) for _, p in chosen], loop, which)
    return {site: out[site] for site in sites}


def _parts_of(concept: Concept, split: Split, chosen: Sequence[tuple[Kind, Prompt]]) -> Tensor | None:
    """Which of the concepts that it was put together from each prompt is of; -1 for those of none."""
    if not concept.parts:
        return None
    number = {
        p: i for i, part in enumerate(concept.parts) for source in FORGET_KINDS for p in part.prompts(source, split)
    }
    return torch.tensor([number.get(p, -1) if source in FORGET_KINDS else -1 for source, p in chosen])


def _captured(
    subject: Subject,
    concept: Concept,
    split: Split,
    chosen: Sequence[tuple[Kind, Prompt]],
    asked: Sequence[Prompt] | Sequence[Query],
    sites: Sequence[Site],
    which: RowQuery,
) -> dict[Site, ConceptRows]:
    source_of = torch.tensor([KINDS.index(source) for source, _ in chosen])
    own = torch.tensor([source in FORGET_KINDS for source, _ in chosen])
    shown = [p.label or p.subject or p.text for _, p in chosen]
    number = {what: i for i, what in enumerate(dict.fromkeys(shown))}
    about = torch.tensor([number[what] for what in shown])
    part = _parts_of(concept, split, chosen)
    kinds, options = which.kinds or None, CaptureOptions(steps=which.steps)
    out = {}
    captured = read_rows(subject, asked, sites=sites, kinds=kinds, sampling=which.sampling, options=options)
    for site, block in captured.items():
        columns = block.columns
        prompt = columns["prompt"]
        rows = ConceptRows(
            block.x,
            own[prompt],
            source_of[prompt],
            columns["kind"],
            prompt,
            columns["step"],
            about[prompt],
            None if part is None else part[prompt],
        )
        behind = subject.reads_forward and kinds and "bos" not in kinds
        out[site] = rows.select(columns["token"] != 0) if behind else rows
    return out
