"""The whole flow in one command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from concept_probe.cli.common import (
    ChoiceImages,
    ChoiceSteps,
    ConceptFile,
    ConceptName,
    Model,
    Output,
    PicturesPerPrompt,
    RecogniserName,
    Saes,
    Seed,
    Threads,
    concept_of,
    plain_errors,
    recogniser_of,
    saes_of,
    twin_of,
    writable,
)
from concept_probe.cli.console import err
from concept_probe.cli.drawing import ClipSkip, GuidanceRescale, PictureSize, sampling_of, subject_of
from concept_probe.cli.making import FIRST_CHOICE, Effort, found_and_made, needs_features, step
from concept_probe.cli.reports import REPORT_FILES, print_verdict, signed, write_report
from concept_probe.cli.rounds import AtOnce, Looks, MostPictures, MostSeconds, rounds_of

PICTURES, TEXTS = 12, 20
"""Test prompts per kind: a text costs less than a picture, and facts are few."""


def run(
    concept: ConceptName,
    output: Output,
    model: Model = "emoji",
    eraser: Annotated[
        str | None,
        typer.Option(
            help=f"An eraser, see `info erasers`. Default: {FIRST_CHOICE['pictures']}, or {FIRST_CHOICE['texts']} for a "
            "language model."
        ),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train the autoencoder anew instead of taking a shipped one.")
    ] = False,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    twin: Annotated[str | None, typer.Option(help="A model never taught the concept; `none` for no twin.")] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=1, help="Test prompts per kind. Default: 12, or 20 for a language model; twice that in rounds."
        ),
    ] = None,
    seeds: PicturesPerPrompt = 2,
    rounds: Looks = None,
    at_once: AtOnce = False,
    max_pictures: MostPictures = None,
    max_seconds: MostSeconds = None,
    choice_images: ChoiceImages = None,
    choice_steps: ChoiceSteps = None,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Capture, learn, find, erase, attack, audit and report, for one concept.

    Examples:

    `concept-probe run camel --output camel-report`

    `concept-probe run church --model my-pipeline --concept-file church.json --recogniser clip:my-clip --retrain --output church-report`

    `concept-probe run mathematics --model smollm2 --output mathematics-report`
    """
    with plain_errors():
        from concept_probe.attacks import Budget
        from concept_probe.auditing import AuditPlan, audit
        from concept_probe.erasers import ERASERS
        from concept_probe.erasers.erasure.provenance import shown_name
        from concept_probe.registry import look_up

        started = time.perf_counter()
        writable(output, files=REPORT_FILES)
        if eraser is not None:
            look_up(ERASERS, eraser, "eraser", "concept-probe info erasers")
        about = concept_of(concept, concept_file, model, more=not at_once)
        subject = subject_of(model, clip_skip, picture_size)
        sampling = sampling_of(subject, guidance_rescale)
        texts = subject.answers == "texts"
        eraser = eraser or FIRST_CHOICE[subject.answers]
        if texts and choice_steps is not None:
            raise ValueError(
                f"--choice-steps is of pictures, and {model} answers with texts; --choice-images is of both"
            )
        effort = Effort(choice_images, choice_steps, guidance_rescale)
        looks = recogniser_of(recogniser, about, subject)
        untaught = twin_of(twin, model, about)
        control = subject_of(untaught, clip_skip, picture_size) if untaught is not None else None
        step(f"{subject.name}: {len(subject.components)} components")
        autoencoders = _retrained(subject, about, model, output) if retrain else _known(sae, subject, eraser)
        found, erasure = found_and_made(eraser, subject, about, looks, autoencoders, seed, effort)
        step(f"erasure: {shown_name(erasure)}")
        asked = rounds_of(rounds, max_pictures, max_seconds, at_once, about, prompts, subject.answers)
        usual = (TEXTS if texts else PICTURES) * (1 if asked is None else 2)
        plan = AuditPlan(
            prompts=prompts or usual, rounds=asked, seeds=tuple(range(seeds)), seed=seed,
            sampling=sampling,
            budget=Budget(queries=36, gradient_steps=12, examples=4) if texts else Budget(),
        )  # fmt: skip
        report = signed(audit(subject, erasure, about, twin=control, recogniser=looks, found=found, plan=plan))
        write_report(report, output)
        _save(erasure, output)
        print_verdict(report, output)
        err.print(f"{time.perf_counter() - started:.0f} s")


def _known(sae: Sequence[str] | None, subject, eraser: str):
    """Autoencoders by folder or shipped ones; an eraser that needs none runs without."""
    from concept_probe.erasers import ERASERS

    try:
        return saes_of(sae, subject)
    except LookupError:
        if needs_features(ERASERS[eraser]):
            raise
        return ()


def _retrained(subject, concept, model: str, output: Path):
    """An autoencoder trained on the embedded prompts, or on the concept's own fit prompts for another model."""
    from concept_probe import testbed
    from concept_probe.concepts.embedded import prompts
    from concept_probe.learn.train.recipe import default_site, train_on_subject
    from concept_probe.types import KINDS

    asked = (
        prompts(model)[::2] if model in testbed.EMBEDDED else tuple(p for k in KINDS for p in concept.prompts(k, "fit"))
    )
    site = default_site(subject)
    step(f"training an autoencoder over {site} on {len(asked):,} prompts")
    return (train_on_subject(subject, asked, site, folder=output / "sae"),)


def _save(erasure, output: Path) -> None:
    from concept_probe.erasers import Edit

    if isinstance(erasure, Edit):
        erasure.save(output / "edit")
