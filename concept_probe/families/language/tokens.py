"""Prompts as a language model reads them: spelled out, as token ids, and what each position is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from concept_probe.families.language.chat import AS_USUAL, ChatFrame
from concept_probe.families.text.tokens import Tokens, subject_spans
from concept_probe.registry import look_up
from concept_probe.types import BOS, CONTENT, EOS, FORMS, PAD, SUBJECT, Prompt

Padding = Literal["left", "right"]


@dataclass(frozen=True)
class Spelled:
    """One prompt, perhaps with a continuation, as token ids."""

    ids: tuple[int, ...]
    kinds: tuple[int, ...]
    """Per token, an index into TOKEN_KINDS."""
    prompt: int
    """How many of the tokens are the prompt's; the others spell the continuation."""

    def part(self, start: int, stop: int | None = None) -> Spelled:
        """The tokens from `start` to `stop`, all of them a prompt's."""
        ids = self.ids[start:stop]
        return Spelled(ids, self.kinds[start:stop], len(ids))


def spell(tokenizer: Any, prompt: Prompt, continuation: str = "", chat: ChatFrame = AS_USUAL) -> Spelled:
    """Token ids and kinds of a prompt and of a text that goes on from it.

    In form `plain` the text stands as it is, between the marks that the tokenizer adds. In form `chat` it is the
    user's turn, and the continuation begins the model's. What stands before the text is of kind `bos`, what
    stands after it of kind `eos`: it belongs to no word and can depend on all of them. A token that spells the end
    of the prompt and the beginning of the continuation counts as the continuation's.

    Raises ValueError where a prompt has no token, and as `ChatFrame.around` does.
    """
    look_up(dict.fromkeys(FORMS), prompt.form, "form of prompt")
    spans = subject_spans(prompt)
    before, after = chat.around(tokenizer, prompt.text) if prompt.form == "chat" else ("", "")
    start = len(before)
    end = start + len(prompt.text)
    whole = before + prompt.text + after + continuation
    plain = prompt.form == "plain"
    out = tokenizer(
        whole, add_special_tokens=plain, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    limit = len(before + prompt.text + after)
    ids, kinds, length, begun = [], [], 0, False
    for token, (a, b), mark in zip(out.input_ids, out.offset_mapping, out.special_tokens_mask, strict=True):
        added = plain and bool(mark)
        if added and begun:
            continue  # an end mark that the tokenizer adds would end the text before its continuation
        begun = begun or not added
        ids.append(token)
        if added or b <= start:
            kinds.append(BOS)
        elif a >= end and b <= limit:
            kinds.append(EOS)
        else:
            named = any(a < start + stop and b > start + first for first, stop in spans)
            kinds.append(SUBJECT if named else CONTENT)
        if added or b <= limit:
            length = len(ids)
    if not length:
        raise ValueError(f"prompt {prompt.text!r} has no token to answer after; give it at least one word")
    return Spelled(tuple(ids), tuple(kinds), length)


@dataclass(frozen=True)
class Batch:
    """Spelled prompts side by side."""

    ids: Tensor
    """(n, t) long"""
    mask: Tensor
    """(n, t) long: 0 where a position only fills the batch"""
    kinds: Tensor
    """(n, t) long, indices into TOKEN_KINDS"""
    places: Tensor
    """(n, t) long: a token's place in its own text; -1 where `mask` is 0"""

    @property
    def last(self) -> Tensor:
        """(n,) long: position of each row's last token."""
        return self.places.argmax(-1)

    def parts(self, size: int) -> Iterator[tuple[range, Batch]]:
        """At most `size` rows after another, each part with the places of its rows."""
        for start in range(0, len(self.ids), size):
            rows = range(start, min(start + size, len(self.ids)))
            cut = slice(rows.start, rows.stop)
            yield rows, Batch(self.ids[cut], self.mask[cut], self.kinds[cut], self.places[cut])

    def tokens(self) -> Tokens:
        return Tokens((self.ids,), (self.kinds,), (self.mask,))


def pad(rows: Sequence[Spelled], fill: int, side: Padding, device: torch.device | None = None) -> Batch:
    """Rows of unequal length as one batch, filled up with token `fill` on one side."""
    longest = max((len(r.ids) for r in rows), default=0)
    ids = torch.full((len(rows), longest), fill)
    kinds, mask, places = torch.full_like(ids, PAD), torch.zeros_like(ids), torch.full_like(ids, -1)
    for i, row in enumerate(rows):
        n = len(row.ids)
        at = slice(longest - n, longest) if side == "left" else slice(0, n)
        ids[i, at], kinds[i, at] = torch.tensor(row.ids), torch.tensor(row.kinds)
        mask[i, at], places[i, at] = 1, torch.arange(n)
    return Batch(ids.to(device), mask.to(device), kinds.to(device), places.to(device))
