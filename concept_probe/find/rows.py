"""Activations of a concept's prompts, labelled: which rows are the concept's and which are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import capture
from concept_probe.families.text.kinds import NAMED_KINDS, kind_numbers
from concept_probe.types import FORGET_KINDS, KINDS, OTHER_KINDS, Concept, Kind, Prompt, Query, Sampling, Site, Split

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Rows:
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

    def select(self, keep: Tensor) -> Rows:
        """The rows where `keep` (n,) bool is true."""
        columns = (self.x, self.concept, self.source, self.kind, self.prompt, self.step, self.about)
        return Rows(*(column[keep] for column in columns))


def gather_prompts(
    concept: Concept,
    split: Split,
    sources: Sequence[Kind] = KINDS,
    *,
    limit: int | None = None,
) -> list[tuple[Kind, Prompt]]:
    """The prompts of one split with the list each is from; at most `limit` of each list, evenly spaced.

    Raises ValueError where the concept's own prompts or the others are missing: nothing can be contrasted then.
    """
    out: list[tuple[Kind, Prompt]] = []
    for source in sources:
        prompts = concept.prompts(source, split)
        if limit is not None and len(prompts) > limit:
            prompts = tuple(prompts[i * len(prompts) // limit] for i in range(limit))
        out.extend((source, prompt) for prompt in prompts)
    for what, side in (("of its own (target, paraphrases, implicit)", FORGET_KINDS), ("to compare with", OTHER_KINDS)):
        if not any(source in side for source, _ in out):
            lists = ", ".join(sources)
            raise ValueError(f"concept {concept.name!r} has no prompts {what} in split {split!r} among {lists}")
    return out


def concept_rows(
    subject: Subject,
    concept: Concept,
    sites: Sequence[Site],
    split: Split = "fit",
    *,
    kinds: Sequence[str] = NAMED_KINDS,
    sources: Sequence[Kind] = KINDS,
    limit: int | None = None,
    steps: Sequence[int] | None = None,
    sampling: Sampling = Sampling(),
) -> dict[Site, Rows]:
    """Capture the concept's prompts of one split at `sites`.

    Where a subject reads forward, the first position of a text goes with the kind `bos`, whatever stands there: it
    says nothing but its own token, and is so long that it would decide every mean. Text sites use the text-only path.
    Sites inside the denoising loop are captured while pictures are made from seed 0 of each prompt, at `steps` (all,
    if None), conditional rows only.
    """
    kind_numbers(kinds)
    out: dict[Site, Rows] = {}
    chosen = gather_prompts(concept, split, sources, limit=limit)
    text = [site for site in sites if subject.is_text(site)]
    loop = [site for site in sites if site not in text]
    if text:
        out |= _captured(subject, chosen, [p for _, p in chosen], text, kinds, None, sampling)
    if loop:
        out |= _captured(subject, chosen, [Query(p, 0) for _, p in chosen], loop, kinds, steps, sampling)
    return {site: out[site] for site in sites}


def _captured(
    subject: Subject,
    chosen: Sequence[tuple[Kind, Prompt]],
    asked: Sequence[Prompt] | Sequence[Query],
    sites: Sequence[Site],
    kinds: Sequence[str],
    steps: Sequence[int] | None,
    sampling: Sampling,
) -> dict[Site, Rows]:
    source_of = torch.tensor([KINDS.index(source) for source, _ in chosen])
    own = torch.tensor([source in FORGET_KINDS for source, _ in chosen])
    shown = [p.label or p.subject or p.text for _, p in chosen]
    number = {what: i for i, what in enumerate(dict.fromkeys(shown))}
    about = torch.tensor([number[what] for what in shown])
    store = capture(subject, asked, sites=sites, steps=steps, sampling=sampling, kinds=kinds or None)
    out = {}
    for site in sites:
        block = store.read(site)
        columns = {name: column.long() for name, column in block.columns.items()}
        prompt = columns["prompt"]
        # Copies: the store's folder goes with the store.
        rows = Rows(
            block.x.float().clone(),
            own[prompt],
            source_of[prompt],
            columns["kind"].clone(),
            prompt.clone(),
            columns["step"].clone(),
            about[prompt],
        )
        behind = subject.reads_forward and kinds and "bos" not in kinds
        out[site] = rows.select(columns["token"] != 0) if behind else rows
    return out
