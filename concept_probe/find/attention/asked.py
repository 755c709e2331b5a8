"""What is asked of attention: words, layers, steps and pictures, each as it has to be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.find.attention.words import said_in, words_of
from concept_probe.registry import look_up
from concept_probe.types import Prompt

Words = Sequence[str] | Sequence[Sequence[str]] | None
"""The same words for every prompt, each prompt's own, or every word of each."""


def asked_words(words: Words, prompts: Sequence[Prompt]) -> list[list[str]]:
    """Each prompt's own words, every one of them in it."""
    if isinstance(words, str):
        raise TypeError(f"words are {words!r}; they are a list, such as [{words!r}]")
    if words is None:
        return [words_of(prompt.text) for prompt in prompts]
    if all(isinstance(one, str) for one in words):
        own = [[str(one) for one in words] for _ in prompts]
    else:
        own = [[one] if isinstance(one, str) else list(one) for one in words]
    if len(own) != len(prompts):
        raise ValueError(f"{len(own)} lists of words were given for {len(prompts)} prompts; give each prompt its own")
    for prompt, of in zip(prompts, own, strict=True):
        for word in of:
            said_in(prompt, word)
    return [list(dict.fromkeys(of)) for of in own]


def kept_steps(asked: Sequence[int] | None, passes: int) -> tuple[int, ...]:
    """The passes that were asked for, of so many; None: all."""
    if asked is None:
        return tuple(range(passes))
    if not asked or (wrong := [one for one in asked if not 0 <= one < passes]):
        said = f"pass {wrong[0]}" if asked else "no pass"
        raise ValueError(f"{said} was asked for; sampling has passes 0 to {passes - 1}")
    return tuple(sorted(set(asked)))


def latents_of(subject: DiffusionSubject, pictures: Tensor, count: int) -> Tensor:
    """Pictures (count, 3, h, w) of the subject's own size, as latents."""
    if tuple(pictures.shape) != (count, 3, *subject.picture_size):
        raise ValueError(
            f"{subject.name}: pictures are {tuple(pictures.shape)}; they are one for each of {count} prompts, (n, 3, h, w) with "
            f"{subject.picture_size[0]} x {subject.picture_size[1]} pixels (`with subject.sized(h, w)` takes others)"
        )
    if not bool(((pictures >= 0) & (pictures <= 1)).all()):
        raise ValueError(
            f"{subject.name}: pictures go from {pictures.min().item():.3g} to {pictures.max().item():.3g}; their pixels are "
            "numbers in 0..1 (divide those in 0..255 by 255)"
        )
    with torch.no_grad():
        return subject.latents(pictures)


def kept_layers(
    subject: DiffusionSubject, names: Sequence[str] | None, points: bool = False
) -> tuple[AttentionLayer, ...]:
    """The layers of these names or kinds, in the order of the forward pass; None: those that read the text, and with `points`
    those where the image looks at itself. ValueError for those that have no weights, UnknownName for those that aren't there."""
    every = subject.attentions()
    if points and not any(layer.kind in ("joint", "self") for layer in every):
        raise ValueError(
            f"{subject.name}: in none of its layers with weights does the image look at itself ({_counted(every)}), so nothing is "
            "seen from `points`; leave them out"
        )
    if names is None:
        kinds = ("cross", "joint", "self") if points else ("cross", "joint")
        return tuple(layer for layer in every if layer.kind in kinds)
    if isinstance(names, str):
        raise TypeError(f"layers are {names!r}; they are a list of names or kinds, such as [{names!r}]")
    known = {layer.name: layer for layer in every} | {layer.kind: layer for layer in every}
    asked = [look_up(known, name, "layer", f"{subject.name} has them") for name in names]
    for name, layer in zip(names, asked, strict=True):
        if layer.kind == "linear":
            raise ValueError(
                f"{subject.name}: layer {name!r} is a linear attention, which has no weight for a pair of patches and so no map; "
                "name others (cross)"
            )
    out = tuple(layer for layer in every if layer.name in names or layer.kind in names)
    alone = next((layer for layer in out if layer.kind == "self"), None)
    if alone is not None and not points:
        raise ValueError(
            f"{subject.name}: in layer {alone.name!r} the image looks at itself, and at no word; give `points` of MapOptions, the "
            "places whose looking is kept, or leave it out"
        )
    return out


def _counted(layers: Sequence[AttentionLayer]) -> str:
    kinds = [layer.kind for layer in layers]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
