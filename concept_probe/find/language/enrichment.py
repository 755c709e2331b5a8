"""Which columns speak of a concept: no judge, only its tokens, against matched random columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.find.language.unembedding import Norm, Unembedding
from concept_probe.find.language.writing import Writing
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject


WORD_STARTS = ("Ġ", "▁", " ")
"""How tokenizers write the space with which a word begins."""


class NoTokens(ValueError):
    """No token is the concept's alone: there is nothing by which a column could be said to speak of it."""


@dataclass(frozen=True)
class EnrichedColumns:
    """Every column of the down projections, by how strongly it speaks of the concept, strongest first."""

    sites: tuple[Site, ...]
    """(m,) weight sites with `item` set to the column"""
    scores: Tensor
    """(m,) |mean z score of the concept's tokens| x sqrt(number of tokens); z is taken over words about as frequent"""
    sign: Tensor
    """(m,) 1 where the column promotes the tokens, -1 where it does so with a negative coefficient"""
    q: Tensor
    """(m,) false-discovery rate if the columns down to this one are taken, by matched random columns"""
    random: Tensor
    """(r,) the same scores for matched random columns, all of them: the control"""
    tokens: tuple[int, ...]
    """The concept's tokens"""

    def discovered(self, rate: float = 0.1) -> int:
        """How many columns, from the first, have a false-discovery rate of at most `rate`."""
        return int((self.q <= rate).sum())


def concept_tokens(subject: CausalLMSubject, concept: Concept) -> tuple[int, ...]:
    """Tokens that spell words of the concept, on the fit split: of its name, its answers, or two of its targets' facts.

    Left out are words of other prompts, of their answers and of wrong answers, and words of several tokens. Raises
    NoTokens, a ValueError, where nothing is left.
    """
    own = [p for kind in FORGET_KINDS for p in concept.prompts(kind, "fit")]
    others = [p for kind in OTHER_KINDS for p in concept.prompts(kind, "fit")]
    facts: dict[str, set[int]] = {}
    for p in concept.prompts("target", "fit"):
        facts.setdefault(p.fact or p.text, set()).update(_words(subject, [p.text]))
    often = Counter(token for words in facts.values() for token in words)
    ours = {t for t, count in often.items() if count > 1} | _words(subject, [concept.name, *_answers_of(own)])
    theirs = _words(subject, [t for p in others for t in (p.text, *p.answers, *p.distractors)])
    wrong = _words(subject, [t for p in own for t in p.distractors])
    found = tuple(sorted(ours - theirs - wrong))
    if not found:
        raise NoTokens(f"concept {concept.name!r}: every token of its fit prompts also stands in other prompts")
    return found


def _answers_of(prompts: Sequence[Prompt]) -> list[str]:
    return [answer for prompt in prompts for answer in prompt.answers]


def _words(subject: CausalLMSubject, texts: Sequence[str]) -> set[int]:
    """Tokens that spell a whole word of at least three letters, with the space before it."""
    out: set[int] = set()
    for text in [" " + t.strip() for t in texts]:
        read = subject.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(read.input_ids, read.offset_mapping, strict=True):
            if end == len(text) or not text[end].isalpha():  # else only the beginning of a word
                out |= {token} if _begins_word(subject, token) and text[start:end].strip() else set()
    return out


def _begins_word(subject: CausalLMSubject, token: int) -> bool:
    (piece,) = subject.tokenizer.convert_ids_to_tokens([token])
    letters = subject.tokenizer.decode([token]).strip()
    return piece[:1] in WORD_STARTS and len(letters) > 2 and letters.isalpha()


def background_tokens(subject: CausalLMSubject, tokens: Sequence[int], each: int = 100) -> tuple[int, ...]:
    """For each token, the `each` that stand nearest to it in the vocabulary and also begin words; tokens of the
    concept are none of them.

    Vocabularies are sorted by frequency, or were merged in its order, so these are about as frequent. A vocabulary with
    fewer such tokens gives all its others.
    """
    count = subject.matrix(subject.sites("unembed")[0]).shape[0]
    known = range(min(count, len(subject.tokenizer)))
    words = [t for t in known if t not in set(tokens) and _begins_word(subject, t)]
    pool = torch.tensor(words if len(words) >= each else [t for t in known if t not in set(tokens)])
    near = [pool[(pool - t).abs().topk(min(each, len(pool)), largest=False).indices] for t in tokens]
    return tuple(torch.cat(near).tolist())


def enriched_columns(
    subject: CausalLMSubject,
    concept: Concept,
    *,
    norm: Norm = "folded",
    sites: Sequence[Site] | None = None,
    tokens: Sequence[int] | None = None,
    controls: int = 4,
    seed: int = 0,
) -> EnrichedColumns:
    """Score every column by how far the concept's tokens stand out among words about as frequent, in one pass.

    A column's matched random columns (`controls` per column) have its length, and each of their entries is that of
    some column of the same matrix: alike in every coordinate, but made by nothing. The false-discovery rate of the
    columns above a score is the number of random ones above it (plus one), per `controls`, over their number.

    Mean and spread over the `background_tokens` follow from the first two moments of their rows of the unembedding,
    so no score of a token is computed. Among all tokens, columns that only tell frequent words from rare ones would
    come first.
    """
    head = Unembedding.of(subject, norm)
    chosen = tuple(tokens) if tokens is not None else concept_tokens(subject, concept)
    moments = _Moments.of(head, chosen, background_tokens(subject, chosen))
    generator = torch.Generator().manual_seed(seed)
    places: list[Site] = []
    real, random = [], []
    for site in sites if sites is not None else subject.sites("mlp_value"):
        columns = Writing.of(subject, site)(subject.matrix(site).detach().float())
        real.append(moments.enrichment(head.through_norm(columns)))
        for _ in range(controls):
            random.append(moments.enrichment(head.through_norm(shuffled_columns(columns, generator))).abs())
        places += [Site(site.component, site.path, "weight", j) for j in range(columns.shape[1])]
    score, decoy = torch.cat(real).cpu(), torch.cat(random).cpu() if random else torch.zeros(0)
    order = score.abs().argsort(descending=True, stable=True)
    ranked = score[order]
    return EnrichedColumns(
        tuple(places[i] for i in order.tolist()), ranked.abs(), ranked.sign(), _rates(ranked.abs(), decoy, controls),
        decoy, chosen,
    )  # fmt: skip


@dataclass(frozen=True)
class _Moments:
    """What is needed of the unembedding to standardise a score over tokens like the concept's."""

    mean: Tensor
    """(d,) mean row of the background"""
    covariance: Tensor
    """(d, d) of its rows"""
    wanted: Tensor
    """(d,) mean row of the concept's tokens"""
    count: int

    @classmethod
    def of(cls, head: Unembedding, tokens: Sequence[int], background: Sequence[int]) -> _Moments:
        rows, others = (
            head.matrix[torch.tensor(list(each), device=head.matrix.device)] for each in (tokens, background)
        )
        mean = others.mean(0)
        centred = others - mean
        return cls(mean, centred.mT @ centred / len(centred), rows.mean(0), len(tokens))

    def enrichment(self, rows: Tensor) -> Tensor:
        """(m, d) as the unembedding meets them -> (m,) mean z score of the tokens x sqrt(their number)."""
        spread = ((rows @ self.covariance) * rows).sum(1).clamp_min(torch.finfo(rows.dtype).tiny).sqrt()
        return (rows @ (self.wanted - self.mean)) / spread * self.count**0.5


def shuffled_columns(columns: Tensor, generator: torch.Generator) -> Tensor:
    """As many columns (d, m), each entry taken from a random column of the same row, with the columns' lengths."""
    order = torch.rand(columns.shape, generator=generator).argsort(dim=1).to(columns.device)
    mixed = columns.gather(1, order)
    lengths = torch.linalg.vector_norm(mixed, dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
    return mixed * (torch.linalg.vector_norm(columns, dim=0) / lengths)


def _rates(scores: Tensor, random: Tensor, controls: int) -> Tensor:
    """(m,) false-discovery rates of `scores`, which descend: never larger for a higher score."""
    if not controls:
        return torch.ones_like(scores)
    above = len(random) - torch.searchsorted(random.sort().values, scores, right=False)
    rates = (1 + above) / controls / torch.arange(1, len(scores) + 1)
    return rates.flip(0).cummin(0).values.flip(0).clamp_max(1.0)
