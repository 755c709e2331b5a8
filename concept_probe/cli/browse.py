"""Look at the features of an autoencoder in a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from concept_probe.cli.common import ConceptFile, Model, Seed, command, concept_of, plain_errors, subject_of
from concept_probe.cli.console import err

TEXT_LIMIT, PICTURE_LIMIT = 1500, 240
"""Prompts read by default: sites in the denoising loop need a picture for each."""


def browse(
    sae: Annotated[Path, typer.Argument(help="Folder of an autoencoder, ours or a published one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    model: Model = "emoji",
    site: Annotated[str | None, typer.Option(help="Address of its site, where the folder does not name one.")] = None,
    feature: Annotated[list[int] | None, typer.Option(help="Number of a feature; may be repeated.")] = None,
    concept: Annotated[str | None, typer.Option(help="Show the features of this concept.")] = None,
    count: Annotated[int, typer.Option(help="How many features, if none is named.")] = 64,
    prompt_file: Annotated[
        Path | None, typer.Option(help="Text file, one prompt a line. Default: embedded prompts not trained on.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help=f"At most so many prompts. Default: {TEXT_LIMIT}, or {PICTURE_LIMIT} with pictures."),
    ] = None,
    examples: Annotated[int, typer.Option(help="Prompts per feature.")] = 6,
    pictures: Annotated[int, typer.Option(help="How many of them are drawn.")] = 3,
    concept_file: ConceptFile = None,
    seed: Seed = 0,
) -> None:
    """Write a page of features: the prompts they fire on, what they prefer, how often they fire.

    Example: `concept-probe browse sae_checkpoints/emoji/text_stream --output features.html`
    """
    with plain_errors():
        from concept_probe.concepts.embedded import prompts as embedded
        from concept_probe.find import Examples, catalogue, evenly_by_label, find_features
        from concept_probe.learn import load_sae
        from concept_probe.report import to_browser
        from concept_probe.storage import read_text, write_text
        from concept_probe.types import Prompt, Site

        subject = subject_of(model)
        loaded = load_sae(sae, site=None if site is None else Site.parse(site), subject=subject)
        subject.module(loaded.site)
        if prompt_file is not None:
            lines = read_text(prompt_file, "give a text file with one prompt a line")
            asked = tuple(Prompt(line.strip()) for line in lines.splitlines() if line.strip())
        else:
            asked = embedded(model, "test")
        if limit is None:
            limit = TEXT_LIMIT if subject.is_text(loaded.site) else PICTURE_LIMIT
        asked = evenly_by_label(asked, limit)
        wanted = tuple(feature or ())
        if concept is not None:
            found = find_features(loaded, subject, concept_of(concept, concept_file, model), seed=seed)
            if not found:
                err.print(f"no feature of {sae} is selective for {concept!r}; nothing was written")
                raise typer.Exit(1)
            wanted += found[0].features
        shown = Examples(examples, pictures)
        seen = catalogue(loaded, subject, asked, features=wanted, count=count, examples=shown, seed=seed)
        made = {**seen.provenance, "autoencoder": str(sae), "command": command()}
        write_text(output, to_browser(replace(seen, provenance=made)))
        err.print(f"{len(seen.features)} features of {loaded.site} in {output}")
