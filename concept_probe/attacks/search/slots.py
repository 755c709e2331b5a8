"""Places in a prompt for words that are searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from concept_probe.families.text.tokens import subject_spans
from concept_probe.types import BOS, CONTENT, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject


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
        before, length = (kinds == CONTENT) | (kinds == BOS), kinds.shape[1]
        first = int(before.sum(1).max())
        if first + count >= length:
            raise ValueError(
                f"{count} words from token {first} of a prompt on do not fit into the {length} tokens that "
                f"{subject.name!r} reads; give fewer words"
            )
