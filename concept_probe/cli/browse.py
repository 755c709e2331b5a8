"""Look at the features of an autoencoder in a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from concept_probe.cli.command_line import command
from concept_probe.cli.common import (
    ConceptFile,
    Model,
    PromptFile,
    Seed,
    Threads,
    concept_of,
    plain_errors,
    writable,
)
from concept_probe.cli.console import err
from concept_probe.cli.shared.drawing import ClipSkip, GuidanceRescale, PictureSize, rescaled, subject_of
from concept_probe.cli.shared.estimates import REPORT_BYTES, EstimateOnly, Work, say_estimate

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
    prompt_file: PromptFile = None,
    limit: Annotated[
        int | None,
        typer.Option(help=f"At most so many prompts. Default: {TEXT_LIMIT}, or {PICTURE_LIMIT} with pictures."),
    ] = None,
    examples: Annotated[int, typer.Option(help="Prompts per feature.")] = 6,
    pictures: Annotated[int, typer.Option(help="How many of them are drawn.")] = 3,
    concept_file: ConceptFile = None,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    seed: Seed = 0,
    estimate: EstimateOnly = False,
    threads: Threads = None,
) -> None:
    """Write a page of features: the prompts they fire on, what they prefer, how often they fire.

    Example: `concept-probe browse sae_checkpoints/emoji/text_stream --output features.html`
    """
    with plain_errors():
        from concept_probe.activations import estimate_capture
        from concept_probe.concepts.embedded import prompts as embedded
        from concept_probe.concepts.prompt_files import PromptList, read_prompts
        from concept_probe.find import Examples, RowQuery, catalogue, evenly_by_label, find_features
        from concept_probe.learn import load_sae
        from concept_probe.report import to_browser
        from concept_probe.storage import write_text
        from concept_probe.types import Sampling, Site

        writable(output.parent, files=(output.name,))
        subject = subject_of(model, clip_skip, picture_size)
        loaded = load_sae(sae, site=None if site is None else Site.parse(site), subject=subject)
        subject.module(loaded.site)
        listed = PromptList.of(embedded(model, "test")) if prompt_file is None else read_prompts(prompt_file)
        read = subject.is_text(loaded.site)
        limit = limit if limit is not None else TEXT_LIMIT if read else PICTURE_LIMIT
        drawn = not read or pictures > 0
        sampling = rescaled(subject, Sampling(), guidance_rescale, drawn=drawn)
        sampling = listed.sampling(sampling) if drawn else sampling
        asked = evenly_by_label(listed.queries, limit)
        if estimate:
            expected = estimate_capture(subject, asked, sites=[loaded.site], sampling=sampling)
            read_all = Work("reading prompts", seconds=expected.seconds, memory=expected.bytes, disk=REPORT_BYTES)
            say_estimate(subject, sampling, [read_all, Work("drawing", count * pictures if drawn else 0)], output)
        wanted = tuple(feature or ())
        if concept is not None:
            about, which = (
                concept_of(concept, concept_file, model),
                RowQuery(sampling=rescaled(subject, Sampling(), guidance_rescale)),
            )
            found = find_features(loaded, subject, about, which=which, seed=seed)
            if not found:
                err.print(f"no feature of {sae} is selective for {concept!r}; nothing was written")
                raise typer.Exit(1)
            wanted += found[0].features
        shown = Examples(examples, pictures)
        seen = catalogue(
            loaded, subject, asked, features=wanted, count=count, examples=shown, sampling=sampling, seed=seed
        )
        made = {**seen.provenance, "autoencoder": str(sae), "command": command()}
        write_text(output, to_browser(replace(seen, provenance=made)))
        err.print(f"{len(seen.features)} features of {loaded.site} in {output}")
