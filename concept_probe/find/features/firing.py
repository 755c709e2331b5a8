"""What every feature of an autoencoder does over a list of captured prompts, read shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.activations import Activations
from concept_probe.types import SUBJECT, Prompt, SparseCoder

VALUES = 2**25
"""Pre-activations in memory at once: 128 MiB in float32."""
TABLE = 2**28
"""Largest table of prompts x features, in float16: 512 MiB."""


@dataclass(frozen=True)
class PromptFiring:
    """Features of one autoencoder over p prompts."""

    strongest: Tensor
    """(p, f) float16: the largest value of each feature in each prompt."""
    fired: Tensor
    """(f,) long: rows on which each fires."""
    rows: int
    means: Tensor
    """(labels, d) float64: mean row of each label, at its subject's tokens where rows are tokens."""


def prompt_label(prompt: Prompt) -> str:
    """What a prompt is about: its label, else its subject, else nothing."""
    return prompt.label or prompt.subject or ""


def chunks_of(codec: SparseCoder, store: Activations) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Rows (m, d) of the autoencoder's site with their columns, few enough at once for its width."""
    size = max(1, VALUES // codec.width)
    for block in store.blocks(codec.site):
        for start in range(0, len(block.x), size):
            part = slice(start, start + size)
            yield block.x[part].float(), {name: column[part] for name, column in block.columns.items()}


@torch.no_grad()
def firing_per_prompt(codec: SparseCoder, store: Activations, labels: Sequence[str]) -> PromptFiring:
    """One pass over the rows. `labels` are those whose mean rows are wanted; prompts of other labels add to none.

    Raises ValueError where prompts x features is more than can be held (naming both).
    """
    prompts = store.prompts
    if len(prompts) * codec.width > TABLE:
        most = TABLE // codec.width
        raise ValueError(
            f"{len(prompts)} prompts x {codec.width} features don't fit in memory; give at most {most} prompts (--limit)"
        )
    strongest = torch.zeros(len(prompts), codec.width, dtype=torch.float16)
    fired = torch.zeros(codec.width, dtype=torch.long)
    number = {label: i for i, label in enumerate(labels)}
    about = torch.tensor([number.get(prompt_label(p), len(labels)) for p in prompts])
    sums = torch.zeros(len(labels) + 1, store.width(codec.site), dtype=torch.float64)
    counts = torch.zeros(len(labels) + 1, dtype=torch.float64)
    rows = 0
    for x, columns in chunks_of(codec, store):
        codes = codec.encode(x)
        whose = columns["prompt"]
        fires = codes.values > 0
        fired += torch.bincount(codes.indices[fires], minlength=codec.width)
        slots = whose[:, None] * codec.width + codes.indices
        strongest.view(-1).scatter_reduce_(0, slots.flatten(), codes.values.half().flatten(), "amax")
        named = (columns["kind"] == SUBJECT) | (columns["kind"] < 0)  # patches have no kind
        sums.index_add_(0, about[whose[named]], x[named].double())
        counts += torch.bincount(about[whose[named]], minlength=len(counts))
        rows += len(x)
    means = sums[:-1] / counts[:-1, None].clamp_min(1)
    return PromptFiring(strongest, fired, rows, means)


@torch.no_grad()
def values_at(
    codec: SparseCoder, store: Activations, prompts: Sequence[int], features: Sequence[int]
) -> dict[int, Tensor]:
    """Per prompt asked for, the values (places, m) of chosen features at each of its tokens or patches.

    Where a place is seen at several denoising steps, the mean over them. Places that were not captured are NaN.
    """
    asked = torch.full((len(store.prompts),), -1)
    asked[list(prompts)] = torch.arange(len(prompts))
    slot = torch.full((codec.width,), len(features))
    slot[list(features)] = torch.arange(len(features))
    totals: dict[int, Tensor] = {}
    counts: dict[int, Tensor] = {}
    for x, columns in chunks_of(codec, store):
        keep = asked[columns["prompt"]] >= 0
        if not keep.any():
            continue
        codes = codec.encode(x[keep])
        dense = torch.zeros(len(codes.values), len(features) + 1)
        dense.scatter_add_(1, slot[codes.indices], codes.values.float())
        place = torch.maximum(columns["token"][keep], columns["patch"][keep]).clamp_min(0)
        owner = columns["prompt"][keep]
        for prompt in owner.unique().tolist():
            here = owner == prompt
            need = int(place[here].max()) + 1
            if prompt not in totals:
                totals[prompt], counts[prompt] = torch.zeros(0, len(features)), torch.zeros(0)
            if need > len(counts[prompt]):
                more = need - len(counts[prompt])
                totals[prompt] = torch.cat([totals[prompt], torch.zeros(more, len(features))])
                counts[prompt] = torch.cat([counts[prompt], torch.zeros(more)])
            totals[prompt].index_add_(0, place[here], dense[here, :-1])
            counts[prompt] += torch.bincount(place[here], minlength=len(counts[prompt]))
    return {prompt: totals[prompt] / counts[prompt][:, None] for prompt in totals}
