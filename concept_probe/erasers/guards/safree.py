"""SAFREE: words that lead to the concept are projected away from it, within the prompt's own span (arXiv 2410.12761)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations import read_states, tap
from concept_probe.activations.states import tokens_of_kind
from concept_probe.arguments import Natural
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.find.directions.projection import orthonormal
from concept_probe.types import CONTENT, EOS, SUBJECT, Concept, Kind, Moment, Prompt, Site, Subspace

WORD_KINDS = (CONTENT, SUBJECT)


def triggers(without: Float[Tensor, "n d"], concept: Float[Tensor, "d k"], alpha: float) -> Tensor:
    """Bool (n,): words without which the prompt lies farther from the concept than it does without another.

    `without` are embeddings of the prompt with one word left out each, `concept` an orthonormal basis. A word is a
    trigger where its distance exceeds 1 + `alpha` times the mean distance of the other words.
    """
    away = torch.linalg.vector_norm(without - without @ concept @ concept.mT, dim=-1)
    n = len(away)
    others = (away.sum() - away) / max(n - 1, 1)
    return (away > (1 + alpha) * others) & (n > 1)


def made_safe(
    states: Float[Tensor, "m d"],
    without: Float[Tensor, "n d"],
    concept: Float[Tensor, "d k"],
    concept_last: bool = False,
) -> Float[Tensor, "m d"]:
    """P_I (I - P_C) p: off the concept's span, then onto the span of the prompt without a word each.

    With `concept_last` in the other order, (I - P_C) P_I p: then nothing of the concept's span is left, which the first
    order brings back in part.
    """
    span = orthonormal(without.mT)
    if concept_last:
        inside = states @ span @ span.mT
        return inside - inside @ concept @ concept.mT
    return (states - states @ concept @ concept.mT) @ span @ span.mT


@dataclass(frozen=True)
class Safree(Eraser[DiffusionSubject, Intervention]):
    """Find a prompt's trigger words by leaving out one at a time, and project their states.

    >>> guard = Safree(alpha=0.0, tokens="suffix")(subject, concept)
    """

    name = "safree"
    makes = "guard"
    asks = True
    on = "pictures"
    aims = "prompts"
    origin = "published"
    authors = Published(
        {"sources": ("target",), "concept_last": True, "lone": True, "masked_as": 0},
        apart="how many steps it acts in depends on the prompt, and skip connections are filtered",
    )
    alpha: float = 0.01
    """α: by how much a word must stand out to be a trigger."""
    tokens: Literal["trigger", "suffix"] = "trigger"
    """What is projected: `trigger` words alone, as in the paper, or all tokens from the first of them on (`suffix`),
    through the end token and padding, which carry it too."""
    sources: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) whose subjects, or texts where they name none, span the concept."""
    strength: float = 1.0
    """Factor on the change."""
    concept_last: bool = False
    """Whether the concept's span is left out last, as in the authors' code, so that nothing of it stays; see `made_safe`."""
    lone: bool = False
    """Whether the word of a prompt of one word is projected, as in the authors' code; else it has no other to stand out from."""
    masked_as: Natural | None = None
    """Id of the token that a word which is left out is read as, 0 in the authors' code; None: the end token."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(alpha=0.0, tokens="suffix")

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no prompts in `sources`."""
        phrases = dict.fromkeys(p.subject or p.text for kind in self.sources for p in concept.prompts(kind, "fit"))
        if not phrases:
            raise ValueError(
                f"safree: concept {concept.name!r} has no prompts in {', '.join(self.sources)} (fit split)"
            )
        actions: dict[Site, Change] = {}
        for embedding, out in zip(subject.sites("token_embedding"), subject.sites("text_out"), strict=True):
            reader = EncoderReader(subject, embedding, out, self._masked(subject, embedding))
            basis = orthonormal(reader.summaries([Prompt(text) for text in phrases]).mT)
            actions[embedding] = reader.remember
            actions[out] = self._action(reader, basis)
        return self.guard(concept, actions, phrases=list(phrases))

    def _masked(self, subject: DiffusionSubject, embedding: Site) -> Tensor | None:
        """What a word that is left out is embedded as (d,); None for the end token."""
        if self.masked_as is None:
            return None
        table = getattr(subject.module(embedding), "weight", None)
        if not isinstance(table, Tensor) or self.masked_as >= len(table):
            held = f"{len(table)} tokens" if isinstance(table, Tensor) else "no table of tokens"
            raise ValueError(
                f"safree: masked_as is {self.masked_as}, and {embedding} has {held}; name one of these, or none"
            )
        return table[self.masked_as].detach()

    def _action(self, reader: EncoderReader, basis: Tensor) -> Change:
        def change(x: Tensor, moment: Moment) -> Tensor | None:
            if reader.asking or moment.token_kinds is None:
                return None
            delta = torch.zeros_like(x)
            for row in range(len(x)):
                kinds = moment.token_kinds[row].to(x.device)
                words = torch.isin(kinds, torch.tensor(WORD_KINDS, device=x.device)).nonzero()[:, 0]
                if moment.branches[row] != "cond" or len(words) < (1 if self.lone else 2):
                    continue
                without = reader.without(row, words, kinds).to(x)
                chosen = words if len(words) == 1 else words[triggers(without, basis.to(x), self.alpha)]
                if not len(chosen):
                    continue
                if self.tokens == "suffix":
                    chosen = torch.arange(int(chosen[0]), len(kinds), device=x.device)
                safe = made_safe(x[row, chosen], without, basis.to(x), self.concept_last)
                delta[row, chosen] = safe - x[row, chosen]
            return delta if bool((delta != 0).any()) else None

        return change


class EncoderReader:
    """One text encoder, asked for prompts that lack a word."""

    def __init__(self, subject: DiffusionSubject, embedding: Site, out: Site, masked: Tensor | None = None) -> None:
        """`masked` (d,) is what a word that is left out is embedded as; None: as the end token."""
        self.subject, self.embedding, self.out, self.masked = subject, embedding, out, masked
        self.asking = False
        self.embedded = torch.zeros(0)

    def remember(self, x: Tensor, moment: Moment) -> None:
        if not self.asking:
            self.embedded = x

    def summaries(self, prompts: Sequence[Prompt]) -> Tensor:
        """States (n, d) of the prompts' end tokens."""
        return read_states(self.subject, prompts, [self.out], tokens_of_kind(EOS))[self.out].flatten(0, 1)

    def without(self, row: int, words: Tensor, kinds: Tensor) -> Tensor:
        """End-token states (n, d) of a row of the encoding under way with each of n `words` left out."""
        end = int((kinds == EOS).nonzero()[0])
        masked = self.embedded[row].detach().repeat(len(words), 1, 1)
        instead = self.embedded[row, end].detach() if self.masked is None else self.masked.to(masked)
        masked[torch.arange(len(words)), words] = instead
        kept: list[Tensor] = []
        self.asking = True
        try:
            looks = {
                self.embedding: lambda x, m: masked[list(m.prompts)].to(x),
                self.out: lambda x, m: kept.append(x[:, end]),
            }
            with torch.no_grad(), tap(self.subject, looks):
                self.subject.encode([Prompt("")] * len(words))
        finally:
            self.asking = False
        return torch.cat(kept)
