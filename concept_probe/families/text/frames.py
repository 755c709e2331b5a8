"""What pipelines put around a prompt before a language model reads it, and what is read of the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from concept_probe.families.text.sequence import Read
from concept_probe.families.text.spelling import Frame, Framed

_MARK = "\ufffc"
"""A text that no template has."""


def framed_by(whole: Callable[[str], str]) -> Frame:
    """The frame that `whole`, a prompt's text to all that is read, puts around each.

    The frame raises ValueError for a text that `whole` changed.
    """

    def frame(own: str) -> Framed:
        before, found, after = whole(_MARK).partition(_MARK)
        text = whole(own)
        if not found or text != before + own + after:
            raise ValueError(f"the frame around prompt {own!r} changed it to {text!r}, so nobody can tell its tokens")
        return Framed(text, len(before), len(before) + len(own))

    return frame


def chat_frame(tokenizer: Any, messages: Callable[[str], Sequence[Mapping[str, Any]]], **options: Any) -> Frame:
    """The frame of a tokenizer's chat template around `messages`, the conversation for a prompt's text."""

    def whole(text: str) -> str:
        return tokenizer.apply_chat_template(list(messages(text)), tokenize=False, **options)

    return framed_by(whole)


def asked_by_user(text: str) -> list[dict[str, str]]:
    """A conversation that is this one message."""
    return [{"role": "user", "content": text}]


def backbone_of(encoder: nn.Module) -> str:
    """Path of the part of a language model that makes states; the whole of one without a head."""
    return "model" if hasattr(encoder, "lm_head") else ""


def without_first(read: Read, count: int) -> Read:
    """What was read, filled up on the right, but for the first `count` tokens."""
    return Read(read.states[:, count:], read.kinds[:, count:], read.mask[:, count:], read.pooled)
