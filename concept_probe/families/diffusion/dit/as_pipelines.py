"""What more than one class of pipeline does before its transformer runs, and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers.utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from concept_probe.families.diffusion.dit.subject import default_of


def cleaning(pipeline: Any) -> Callable[[str], str]:
    """What the pipeline does to a prompt's text before its tokenizer reads it."""
    thorough = default_of(pipeline, "clean_caption") and is_bs4_available() and is_ftfy_available()

    def clean(text: str) -> str:
        return pipeline._text_preprocessing(text, clean_caption=thorough)[0]

    return clean


def without_variance(out: Tensor, latents: Tensor) -> Tensor:
    """A transformer's output (n, c or 2 c, h, w) without the variance that some predict in a second half."""
    return out.chunk(2, dim=1)[0] if out.shape[1] == 2 * latents.shape[1] else out
