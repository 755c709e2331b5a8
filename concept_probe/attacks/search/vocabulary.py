"""Words that every text encoder reads as one token: what a search for a prompt that can be typed chooses from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.types import CONTENT, Concept, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words to search among. Set side by side with spaces they are read as they are here, token by token."""

    words: tuple[str, ...]
    """v words, in the order of the first tokenizer."""
    ids: dict[Site, Tensor]
    """Per token-embedding site, long (v,): the token that word i is."""
    tables: dict[Site, Tensor]
    """Per token-embedding site (v, d): what word i is read as."""

    @classmethod
    def of(cls, subject: DiffusionSubject, without: Sequence[str] = ()) -> Vocabulary:
        """All words of the subject's tokenizers that are one token in each, but those `without`.

        Raises ValueError where none is left.
        """
        tokenizer = next(iter(subject.text.tokenizers.values()))
        special, banned = set(tokenizer.all_special_ids), {w.lower() for w in without}
        spelled = (tokenizer.decode([i]).strip() for i in range(len(tokenizer)) if i not in special)
        words = [w for w in dict.fromkeys(spelled) if w.isprintable() and len(w.split()) == 1 and w not in banned]
        ids, whole = [], torch.ones(len(words), dtype=torch.bool)
        if words:
            tokens = subject.tokenise([Prompt(w) for w in words])
            for own, kinds in zip(tokens.ids, tokens.kinds_of, strict=True):
                word = kinds == CONTENT
                whole &= word.sum(1) == 1
                ids.append(own.take_along_dim(word.int().argmax(1, keepdim=True), 1)[:, 0])
        if not whole.any():
            raise ValueError(f"{subject.name!r}: no word is a single token in each of its tokenizers")
        kept = tuple(w for w, one in zip(words, whole.tolist(), strict=True) if one)
        sites = subject.sites("token_embedding")
        read = {site: own[whole].to(subject.device) for site, own in zip(sites, ids, strict=True)}
        with torch.no_grad():
            tables = {site: subject.module(site).forward(own) for site, own in read.items()}
        return cls(kept, read, tables)

    def spell(self, ids: Tensor) -> tuple[str, ...]:
        """The words of `ids` (L,)."""
        return tuple(self.words[i] for i in ids.tolist())

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """Ids (count,) of words drawn evenly."""
        return torch.randint(len(self.words), (count,), generator=generator)


def names_of(concept: Concept) -> tuple[str, ...]:
    """Every word of the concept's names and synonyms: what a search must not find."""
    named = (p.subject for kind in (concept.target, concept.paraphrases) for p in kind if p.subject)
    return tuple(dict.fromkeys(word for name in named for word in name.lower().split()))
