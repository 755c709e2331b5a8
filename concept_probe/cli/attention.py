"""Look where a picture looks for the words of its prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from concept_probe.cli.command_line import command
from concept_probe.cli.common import Model, Seed, Threads, plain_errors, writable
from concept_probe.cli.console import err
from concept_probe.cli.shared.drawing import ClipSkip, GuidanceRescale, PictureSize, rescaled, subject_of

if TYPE_CHECKING:
    from torch import Tensor

    from concept_probe.find.attention.maps import AttentionMaps
    from concept_probe.report import MapSection

STEPS_SHOWN = 5
"""Steps whose maps stand in the page, evenly from the first to the last."""
SAYS = {
    "share": "Share of what each patch attends to that falls on the word's tokens: mean over layers, heads and steps. It says "
    "where patches look, not what comes of it; the end token and those that fill up have heard of every word before them.",
    "value": "Attention to the word's tokens times the length of what their values add to the picture's stream: summed over "
    "tokens, mean over layers, heads and steps.",
    "kinds": "The same for all tokens of a kind, and for the picture itself where it is looked at in the same attention.",
    "need": "How much larger the squared error of the prediction is without the word: at blue places the picture needs it, at "
    "orange ones it gets in the way.",
    "against": "How much larger that error is without the word than without the other words, mean over them; smoothed alike.",
}


def attention(
    prompt: Annotated[str, typer.Argument(help="What is drawn.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    model: Model = "emoji",
    word: Annotated[
        list[str] | None, typer.Option(help="A word of the prompt; may be repeated. Default: all of them.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="A layer, or a kind (cross, joint); may be repeated. Default: all that read the text."),
    ] = None,
    value: Annotated[bool, typer.Option("--value", help="Weigh attention by what a token's value adds.")] = False,
    need: Annotated[bool, typer.Option("--need", help="Also draw where the picture needs each word.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="A picture to look at in place of one that is drawn; of the size that is drawn.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--maps", help="Folder to write the maps themselves into.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 15,
    guidance: Annotated[float, typer.Option(help="Weight of guidance.")] = 4.0,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Write a page of attention maps: where a picture looks for each word, layer by layer and step by step.

    Example: `concept-probe attention "a camel in noto style" --word camel --need --output maps.html`
    """
    with plain_errors():
        import torch

        from concept_probe.find import MapOptions, attention_maps, need_maps
        from concept_probe.find.attention.maps import smoothed
        from concept_probe.report import MapSection, attention_to_html
        from concept_probe.storage import write_text
        from concept_probe.types import Prompt, Query, Sampling

        writable(output.parent, files=(output.name,))
        writable(folder, "attention maps")
        subject = subject_of(model, clip_skip, picture_size)
        sampling = rescaled(subject, Sampling(steps=steps, guidance=guidance), guidance_rescale)
        query = Query(Prompt(prompt), seed)
        given = None if picture is None else _picture(picture)
        measure = "value" if value else "share"
        maps = attention_maps(
            subject, [query], words=word, layers=layer, pictures=given, folder=folder, sampling=sampling,
            options=MapOptions(measure=measure),
        )  # fmt: skip
        sections = _sections(maps)
        if need:
            needed = need_maps(subject, [query], words=maps.words(), pictures=given, sampling=sampling)
            alone = {name: smoothed(needed.of(name), 1) for name in maps.words()}
            sections.insert(1, MapSection("Where the picture needs each word", SAYS["need"], alone))
            if len(alone) > 1:
                each = {name: torch.stack([needed.of(name, against=one) for one in alone]) for name in alone}
                others = {name: smoothed(of.sum(0) / (len(alone) - 1), 1) for name, of in each.items()}
                sections.insert(2, MapSection("More than the other words", SAYS["against"], others))
        layers = "; ".join(f"{i}: {name} ({kind})" for i, (name, kind) in enumerate(maps.layers.items()))
        facts = {
            "model": f"{subject.name}, weights {maps.weight_hash[:12]}",
            "sampling": str(sampling),
            "seed": str(seed),
            "layers": layers,
            "command": command(),
        }
        write_text(output, attention_to_html(prompt, maps.picture(), sections, facts))
        err.print(f"maps of {len(maps.places())} words in {len(maps.layers)} layers in {output}")


def _picture(path: Path) -> Tensor:
    """(1, 3, h, w)"""
    import numpy as np
    import torch

    from concept_probe.storage import read_picture

    pixels = np.array(read_picture(path, "give another file, or leave --picture out"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _sections(maps: AttentionMaps) -> list[MapSection]:
    """All words, all kinds, and each word layer by layer and step by step."""
    import torch

    from concept_probe.find.attention.maps import MapChoice, resized
    from concept_probe.find.attention.sums import ATTENDED
    from concept_probe.report import MapSection
    from concept_probe.types.prompts import evenly_with_ends

    words = {_name(maps, at): _mean(maps, at) for at in range(len(maps.places()))}
    kinds = {kind: found for kind in ATTENDED if float((found := maps.kind(kind)).max()) > 0}
    out = [MapSection("Where it looks for each word", SAYS[maps.measure], words)]
    out.append(MapSection("Where it looks for all else", SAYS["kinds"], kinds))
    shown = evenly_with_ends(maps.steps, STEPS_SHOWN)
    size = max(maps.grids.values(), key=lambda grid: grid[0] * grid[1])
    columns = [f"step {step}" for step in shown]
    for word in maps.words():
        layers = maps.at_word(word, which=MapChoice(steps=shown))
        rows = [f"{list(maps.layers).index(name)}: {x.shape[-2]}×{x.shape[-1]}" for name, x in layers.items()]
        grid = torch.stack([resized(x.mean(1), size) for x in layers.values()])
        says = "One row for each layer, numbered as below, with its own scale; noisy steps on the left."
        out.append(MapSection(f"{word}: layer by layer, step by step", says, None, grid, rows, columns))
    return out


def _name(maps: AttentionMaps, at: int) -> str:
    place = maps.places()[at]
    several = sum(one.word == place.word for one in maps.places()) > 1
    return f"{place.word} ({place.nth + 1})" if several else place.word


def _mean(maps: AttentionMaps, at: int) -> Tensor:
    place = maps.places()[at]
    return maps.of(place.word, nth=place.nth)
