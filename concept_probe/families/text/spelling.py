"""Prompts as the text encoder of a diffusion transformer reads them: perhaps inside a frame, padded, told apart by kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from concept_probe.families.text.several_vectors import spelled_out
from concept_probe.families.text.tokens import TooLong, subject_spans
from concept_probe.types import BOS, CONTENT, EOS, PAD, SUBJECT, Prompt


@dataclass(frozen=True)
class Framed:
    """A text inside what a pipeline puts around it."""

    text: str
    start: int
    """Where the prompt's own text begins."""
    end: int
    """Where it ends."""


Frame = Callable[[str], Framed]
"""A prompt's text to that text inside its frame."""


def unframed(text: str) -> Framed:
    return Framed(text, 0, len(text))


@dataclass(frozen=True)
class Spelling:
    """How one text encoder's prompts become token ids."""

    tokenizer: Any
    length: int
    """The most tokens that are read, frame included."""
    padding: Literal["max_length", "longest"] = "max_length"
    frame: Frame = unframed
    clean: Callable[[str], str] = str
    """What is done to a prompt's text before it is framed."""
    side: Literal["left", "right"] | None = None
    """Where it is filled up; None: as the tokenizer does."""
    begun: bool = False
    """Whether the frame has the marks in it that a tokenizer puts around a text."""

    def __call__(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, kinds and padding mask of prompts, each long (n, t).

        What stands before a prompt's text, a frame or a mark, is of kind `bos`, what stands after it of kind `eos`.

        Raises ValueError for a prompt that isn't plain text, TooLong where the cut removes all of a subject; warns where
        it removes anything else of a prompt.
        """
        other = next((p for p in prompts if p.form != "plain"), None)
        if other is not None:
            raise ValueError(
                f"prompt {other.text!r} has form {other.form!r}; models that make pictures read form 'plain' alone"
            )
        if not self.tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer {type(self.tokenizer).__name__} does not say which letters its tokens stand for; load its "
                "fast version (AutoTokenizer does)"
            )
        cleaned = [_cleaned(p, self.clean) for p in prompts]
        spelled = [spelled_out(self.tokenizer, p.text, subject_spans(p)) for p in cleaned]
        framed = [self.frame(text) for text, _ in spelled]
        more = {} if self.side is None else {"padding_side": self.side}
        more |= {"add_special_tokens": False} if self.begun else {}
        out = self.tokenizer(
            [f.text for f in framed], padding=self.padding, max_length=self.length, truncation=True,
            return_offsets_mapping=True, return_attention_mask=True, return_tensors="pt", **more,
        )  # fmt: skip
        kinds = torch.full_like(out.input_ids, PAD)
        shortened = []
        for i, (text, (_, spans)) in enumerate(zip(framed, spelled, strict=True)):
            read = out.attention_mask[i].bool()
            offsets = out.offset_mapping[i][read].tolist()
            kinds[i, read] = torch.tensor(_kinds(text, spans, offsets), dtype=torch.long)
            if not self._whole(text, offsets):
                shortened.append(prompts[i].text)
                if spans and not bool((kinds[i] == SUBJECT).any()):
                    raise TooLong(
                        f"the subject {prompts[i].subject!r} of {prompts[i].text!r} lies behind the {self.length} tokens "
                        "that the text encoder reads; shorten the text before it"
                    )
        if shortened:
            more = f", and of {len(shortened) - 1} more prompts," if len(shortened) > 1 else ""
            warnings.warn(f"only the first {self.length} tokens of {shortened[0]!r}{more} are read", stacklevel=2)
        return out.input_ids, kinds, out.attention_mask

    def _whole(self, text: Framed, offsets: list[list[int]]) -> bool:
        """Whether all of the prompt's own text was read."""
        return not text.text[max((b for _, b in offsets), default=0) : text.end].strip()


def _cleaned(prompt: Prompt, clean: Callable[[str], str]) -> Prompt:
    return replace(prompt, text=clean(prompt.text), subject=None if prompt.subject is None else clean(prompt.subject))


def _kinds(text: Framed, spans: Sequence[tuple[int, int]], offsets: list[list[int]]) -> list[int]:
    """Kinds of the tokens that are read, from the ranges of letters that they stand for."""
    own = [a < b and a < text.end and b > text.start for a, b in offsets]
    before = _before(text, own, offsets)
    kinds = []
    for at, (a, b) in enumerate(offsets):
        if own[at]:
            named = any(a < text.start + stop and b > text.start + start for start, stop in spans)
            kinds.append(SUBJECT if named else CONTENT)
        else:
            kinds.append(BOS if at < before else EOS)
    return kinds


def _before(text: Framed, own: list[bool], offsets: list[list[int]]) -> int:
    """How many tokens stand before the prompt's own; for an empty prompt, before where it would stand."""
    if any(own):
        return own.index(True)
    if text.start == 0:
        return 1 if len(offsets) > 1 else 0  # marks alone: one before it and one after, or one after
    return sum(b <= text.start for _, b in offsets)
