"""What a language model's next-token distributions lose when reconstructions replace a site, and when the mean does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations.tap import tap
from concept_probe.evaluation.bootstrap import bootstrap_counts
from concept_probe.evaluation.intervals import ratio_percentiles
from concept_probe.learn.judge.downstream import Coverage, replacing
from concept_probe.learn.judge.heldout import HeldOutRows
from concept_probe.learn.sae import Sae
from concept_probe.types import Prompt, Score

if TYPE_CHECKING:
    from concept_probe.families.language.causal_lm import CausalLMSubject

BATCH = 8
"""Prompts whose distributions over the vocabulary are in memory at once, twice."""


@torch.no_grad()
def next_token_scores(
    sae: Sae,
    subject: CausalLMSubject,
    prompts: Sequence[Prompt],
    held: HeldOutRows,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[Score, Score]:
    """`kl` and `ce`, in nats per token, each with the mean of the held-out rows in the same places as control.

    - `kl`: Kullback-Leibler divergence of the changed from the untouched next-token distribution, at every position.
    - `ce`: how much less likely the text's own next tokens become; below 0 they become likelier.

    Prompts of equal text are one. Intervals are over prompts.
    """
    coverage, mean = Coverage.of(held.covered), held.mean
    unique = list(dict.fromkeys(prompts))
    parts = [
        _losses(sae, subject, unique[start : start + BATCH], coverage, fn)
        for fn in (sae, lambda rows: mean.to(rows).expand_as(rows))
        for start in range(0, len(unique), BATCH)
    ]
    ours, means = torch.cat(parts).double().cpu().split(len(unique))  # (n, 4): kl, positions, ce, texts' next tokens
    counts = bootstrap_counts(len(unique), draws, seed)
    scores = []
    for name, at in (("kl", 0), ("ce", 2)):
        low, high = ratio_percentiles((counts @ ours[:, at]) / (counts @ ours[:, at + 1]))
        value, control = (float(x[:, at].sum() / x[:, at + 1].sum()) for x in (ours, means))
        scores.append(Score(name, value, low, high, len(unique), "nats per token", "lower", control))
    return scores[0], scores[1]


def _losses(
    sae: Sae, subject: CausalLMSubject, prompts: Sequence[Prompt], coverage: Coverage, fn: Callable[[Tensor], Tensor]
) -> Tensor:
    """(n, 4): per prompt the sum of divergences, positions, the sum of losses of likelihood, tokens that follow one."""
    tokens = subject.tokenise(prompts)
    ids, read = tokens.ids[0], tokens.masks[0].bool()
    clean = _log_probs(subject, prompts)
    with tap(subject, {sae.site: replacing(fn, coverage)}):
        changed = _log_probs(subject, prompts)
    divergence = (clean.exp() * (clean - changed)).sum(-1) * read
    follows = read[:, 1:] & read[:, :-1]
    of_text = ids[:, 1:, None]
    lost = (clean[:, :-1].gather(-1, of_text) - changed[:, :-1].gather(-1, of_text)).squeeze(-1) * follows
    return torch.stack([divergence.sum(1), read.sum(1), lost.sum(1), follows.sum(1)], 1)


def _log_probs(subject: CausalLMSubject, prompts: Sequence[Prompt]) -> Tensor:
    """(n, t, v) float32: what may follow each position."""
    states = subject.encode(prompts, batch=len(prompts)).states
    return subject.model.get_output_embeddings()(states).float().log_softmax(-1)
