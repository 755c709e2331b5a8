"""How a verb reads its model and draws its pictures: the options that say so, and what they come to."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from concept_probe.families import Subject
    from concept_probe.types import Sampling

ClipSkip = Annotated[
    int,
    typer.Option(
        "--clip-skip",
        min=0,
        help="Layers more than usual that are left out at the end of Stable Diffusion's text encoders, as diffusers counts.",
    ),
]
PictureSize = Annotated[
    str | None,
    typer.Option(
        "--picture-size",
        metavar="HEIGHTxWIDTH",
        help="Pixels of the pictures that are drawn, such as 512x768; as the pipeline was made for where it is left out.",
    ),
]
GuidanceRescale = Annotated[
    float,
    typer.Option(
        "--guidance-rescale",
        min=0.0,
        max=1.0,
        help="Share of a guided prediction that is brought to the spread of that under the prompt alone; 0 leaves it. "
        "An eraser that learns from pictures draws those by its own options.",
    ),
]


def subject_of(model: str, clip_skip: int = 0, picture_size: str | None = None) -> Subject:
    """The model by name. ValueError where it has no layers that `clip_skip` could leave out, or draws no such pictures."""
    from concept_probe.families import load

    return load(model, clip_skip=clip_skip, picture_size=size_of(picture_size))


def size_of(text: str | None) -> tuple[int, int] | None:
    """(height, width) of a text such as 512x768."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", text):
        raise ValueError(f"--picture-size got {text!r}; give height and width in pixels: 512x768")
    height, _, width = text.partition("x")
    return int(height), int(width)


def sampling_of(subject: Subject, guidance_rescale: float = 0.0) -> Sampling:
    """How answers are made: a language model is asked for short ones."""
    from concept_probe.types import Sampling

    short = Sampling(tokens=8, batch=32) if subject.answers == "texts" else Sampling()
    return rescaled(subject, short, guidance_rescale)


def rescaled(subject: Subject, sampling: Sampling, guidance_rescale: float, *, drawn: bool = True) -> Sampling:
    """`sampling` with as much of the guidance rescaled; `drawn` says whether the verb draws pictures at all.

    ValueError, before hours are spent, where no picture is drawn or the denoiser has nothing to rescale by.
    """
    if not guidance_rescale:
        return sampling
    if subject.answers == "texts" or not drawn:
        why = f"{subject.name} answers with texts" if subject.answers == "texts" else "none is drawn for this"
        raise ValueError(f"--guidance-rescale is of pictures, and {why}; leave it out")
    from concept_probe.families import DiffusionSubject

    asked = replace(sampling, guidance_rescale=guidance_rescale)
    if isinstance(subject, DiffusionSubject):
        subject.guidance(asked).rescaled(guidance_rescale)
    return asked
