"""Prompts that can be typed: words that every text encoder reads as one token, and the place in a prompt for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.families.text.tokens import CONTENT, subject_spans
from concept_probe.types import Concept, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


@runtime_checkable
class Spells(Protocol):
    """What a search among words asks of a subject, beyond what every subject has."""

    pipeline: Any


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
    def of(cls, subject: Subject, without: Sequence[str] = ()) -> Vocabulary:
        """All words of the subject's tokenizers that are one token in each, but those `without`.

        Raises ValueError where none is left, TypeError for a subject that has no tokenizer.
        """
        tokenizer = getattr(subject.pipeline, "tokenizer", None) if isinstance(subject, Spells) else None
        if tokenizer is None:
            raise TypeError(f"{subject.name!r} has no tokenizer, so there are no words to search among")
        special, banned = set(tokenizer.all_special_ids), {w.lower() for w in without}
        spelled = (tokenizer.decode([i]).strip() for i in range(len(tokenizer)) if i not in special)
        words = [w for w in dict.fromkeys(spelled) if w.isprintable() and len(w.split()) == 1 and w not in banned]
        ids, whole = [], torch.ones(len(words), dtype=torch.bool)
        if words:
            tokens = subject.tokenise([Prompt(w) for w in words])
            for own, kinds in zip(tokens.ids, tokens.kinds_of, strict=True):
                whole &= (kinds == CONTENT).sum(1) == 1
                ids.append(own[:, 1])  # behind the token that begins every prompt
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


@dataclass(frozen=True)
class Slot:
    """A place for words in a prompt."""

    before: str
    """What stands before the words."""
    after: str
    """What stands behind them."""
    prompt: Prompt
    """Gives the label and, where the text still holds it, the subject."""
    every: int = 0
    """The words are spread over what stands behind: one after this many words of it each; 0 keeps them together."""

    def filled(self, words: Sequence[str]) -> Prompt:
        """The prompt with `words` in the place."""
        text = " ".join(part for part in (self.before, *self._spread(words)) if part)
        name = self.prompt.subject
        own = f"{self.before} {self.after}".lower()
        held = name is not None and name.lower() in own and name.lower() in text.lower()
        return replace(self.prompt, text=text, subject=name if held else None)

    def ahead(self, count: int) -> str:
        """What of the prompt stands before the last of `count` words."""
        behind = self.after.split()[: count * self.every]
        return " ".join(part for part in (self.before, *behind) if part)

    def _spread(self, words: Sequence[str]) -> list[str]:
        if not self.every:
            return [*words, self.after]
        out, left = [], list(words)
        for i, own in enumerate(self.after.split(), 1):
            out.append(own)
            if i % self.every == 0 and left:
                out.append(left.pop(0))
        return out + left


def in_front(prompt: Prompt) -> Slot:
    """The place before all of the prompt."""
    return Slot("", prompt.text, prompt)


def in_place(prompt: Prompt) -> Slot:
    """The place of the prompt's subject where it is first said; in front of a prompt that names nothing."""
    spans = subject_spans(prompt)
    if not spans:
        return in_front(prompt)
    start, end = spans[0]
    return Slot(prompt.text[:start].strip(), prompt.text[end:].strip(), prompt)


def instead(prompt: Prompt) -> Slot:
    """The place of the whole prompt."""
    return Slot("", "", prompt)


def among(prompt: Prompt, every: int) -> Slot:
    """Places in the prompt, one after `every` of its words each, the rest behind its end."""
    return Slot("", prompt.text, prompt, every)


def check_room(subject: Subject, slots: Sequence[Slot], count: int) -> None:
    """Raises ValueError where `count` words in one of the slots are more than a text encoder reads."""
    tokens = subject.tokenise([Prompt(slot.ahead(count)) for slot in slots])
    for kinds in tokens.kinds_of:
        first, length = int((kinds == CONTENT).sum(1).max()) + 1, kinds.shape[1]
        if first + count >= length:
            raise ValueError(
                f"{count} words from token {first} of a prompt on do not fit into the {length} tokens that "
                f"{subject.name!r} reads; give fewer words"
            )


def names_of(concept: Concept) -> tuple[str, ...]:
    """Every word of the concept's names and synonyms: what a search must not find."""
    named = (p.subject for kind in (concept.target, concept.paraphrases) for p in kind if p.subject)
    return tuple(dict.fromkeys(word for name in named for word in name.lower().split()))
