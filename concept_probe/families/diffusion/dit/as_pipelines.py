"""What more than one class of pipeline does before its transformer runs, and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from concept_probe.families.diffusion.dit.subject import default_of
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import Join, SequenceEncoders, StateReader
from concept_probe.families.text.spelling import Spelling


def one_encoder(pipeline: Any, join: Join, **spelled: Any) -> SequenceEncoders:
    """A pipeline with one text encoder, which is told what fills a prompt up and whose last state is read; `spelled` are
    further options of its `Spelling`."""
    encoder = unwrapped(pipeline.text_encoder)
    spelling = Spelling(pipeline.tokenizer, default_of(pipeline, "max_sequence_length"), **spelled)
    reader = StateReader("text_encoder", encoder, spelling, (hidden_state(encoder, -1),), masked=True)
    return SequenceEncoders((reader,), join)


def cleaning(pipeline: Any) -> Callable[[str], str]:
    """What the pipeline does to a prompt's text before its tokenizer reads it."""
    thorough = default_of(pipeline, "clean_caption") and is_bs4_available() and is_ftfy_available()

    def clean(text: str) -> str:
        return pipeline._text_preprocessing(text, clean_caption=thorough)[0]

    return clean


def without_variance(out: Tensor, latents: Tensor) -> Tensor:
    """A transformer's output (n, c or 2 c, h, w) without the variance that some predict in a second half."""
    return out.chunk(2, dim=1)[0] if out.shape[1] == 2 * latents.shape[1] else out
