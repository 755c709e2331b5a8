"""Where the rows of the text and of the image are in a sequence of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from concept_probe.families.segments import Rows
from concept_probe.families.text.conditioning import Conditioning

Stream = Literal["text", "image"]
Given = Literal["text", "image", "both"]
"""What the blocks of a list are given: one of the streams, or both as one sequence."""
Held = Literal["text", "image", "both", "own"]
"""What a tensor has rows of: one of the streams as the blocks pass it on, or both as one sequence; or one of them as it
was before, a row for each token or patch and no others."""


@dataclass(frozen=True)
class JointSequence:
    """How a transformer lays text and image out in a row. The default: the whole text, those that fill up too, and then
    the image."""

    registers: int = 0
    """Rows before the text that are no token's."""
    image_first: bool = False
    close: bool = False
    """Whether the image begins where a prompt's own tokens end."""
    multiple: int = 1
    """Each stream is filled up to a multiple of so many rows."""

    def plain(self, held: Held, stream: Stream) -> bool:
        """Whether a tensor that holds one stream has its rows and no others."""
        if held == "own":
            return True
        return held == stream and self.multiple == 1 and (stream == "image" or self.registers == 0)

    def rows(self, held: Held, stream: Stream, text: Conditioning, patches: int) -> Rows:
        """The rows of `stream` in a tensor of a pass under `text` over so many patches."""
        count, tokens = text.states.shape[:2]
        device = text.states.device
        own = torch.arange(tokens if stream == "text" else patches, device=device).expand(count, -1)
        ends = self.close or self.multiple > 1
        there = text.mask if ends and stream == "text" else None
        if held != "both":
            return Rows(own + (self.registers if stream == "text" else 0), there)
        if self.image_first:
            return Rows(own if stream == "image" else own + -(-patches // self.multiple) * self.multiple, there)
        if stream == "text":
            return Rows(own + self.registers, there)
        before = text.mask.sum(1, keepdim=True) if self.close and text.mask is not None else tokens
        return Rows(own + self.registers + before)
