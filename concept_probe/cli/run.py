"""The whole flow in one command."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
    plain_errors,
    saes_of,
    twin_of,
    writable,
)
from concept_probe.cli.console import err
from concept_probe.cli.reports import REPORT_FILES, print_verdict, signed, write_report
from concept_probe.cli.shared.drawing import ClipSkip, GuidanceRescale, PictureSize, sampling_of, subject_of
from concept_probe.cli.shared.estimates import EstimateOnly, Work, audit_work, eraser_work, say_estimate
from concept_probe.cli.shared.from_name import (
    KIT_FILE,
    Defaults,
    concept_for,
    dictionary_estimate,
    dictionary_of,
    measured_judge,
    readable,
    refuse_unknown,
    with_examples,
)
from concept_probe.cli.shared.making import (
    FIRST_CHOICE,
    GENTLE,
    Effort,
    found_and_made,
    is_chosen,
    needs_features,
    step,
)
from concept_probe.cli.shared.rounds import AtOnce, Looks, MostPictures, MostSeconds, rounds_of

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
    kind: Annotated[
        str | None,
        typer.Option(
            help="What the name is: object, style, person, place or topic, for a concept that is made from it. Default: what it "
            "is known as."
        ),
    ] = None,
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
    estimate: EstimateOnly = False,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Capture, learn, find, erase, attack, audit and report, for one concept.

    Examples:

    `concept-probe run camel --output camel-report`

    `concept-probe run church --model my-pipeline --output church-report`

    `concept-probe run church --model my-pipeline --concept-file church.json --recogniser clip:my-clip --retrain --output church-report`

    `concept-probe run mathematics --model smollm2 --output mathematics-report`
    """
    with plain_errors():
        from concept_probe.attacks import Budget
        from concept_probe.auditing import AuditPlan, audit
        from concept_probe.concepts.files import save_concept
        from concept_probe.erasers import ERASERS
        from concept_probe.erasers.erasure.provenance import shown_name
        from concept_probe.registry import look_up

        started = time.perf_counter()
        writable(output, files=REPORT_FILES)
        if eraser is not None:
            look_up(ERASERS, eraser, "eraser", "concept-probe info erasers")
        defaults = Defaults()
        refuse_unknown(concept, concept_file, model)
        subject = subject_of(model, clip_skip, picture_size)
        about = concept_for(concept, concept_file, model, subject, kind, defaults, more=not at_once)
        sampling = sampling_of(subject, guidance_rescale)
        texts = subject.answers == "texts"
        if eraser is None:
            eraser = FIRST_CHOICE[subject.answers]
            defaults.taken["default eraser"] = eraser
        ERASERS[eraser]().refuse_unfit(subject)  # told before an autoencoder is trained for it
        if texts and choice_steps is not None:
            raise ValueError(
                f"--choice-steps is of pictures, and {model} answers with texts; --choice-images is of both"
            )
        effort = Effort(choice_images, choice_steps, guidance_rescale)
        asked = rounds_of(rounds, max_pictures, max_seconds, at_once, about, prompts, subject.answers)
        usual = (TEXTS if texts else PICTURES) * (1 if asked is None else 2)
        plan = AuditPlan(
            prompts=prompts or usual, rounds=asked, seeds=tuple(range(seeds)), seed=seed,
            sampling=sampling,
            budget=Budget(queries=36, gradient_steps=12, examples=4) if texts else Budget(),
        )  # fmt: skip
        untaught = twin_of(twin, model, about)
        if estimate:
            parts = _work(sae, subject, eraser, about, model, retrain, effort, plan, untaught)
            say_estimate(subject, sampling, parts, output)
        control = subject_of(untaught, clip_skip, picture_size) if untaught is not None else None
        looks = measured_judge(recogniser, about, model, subject, sampling, defaults)
        about = with_examples(about, subject, looks, sampling, defaults)
        step(f"{subject.name}: {len(subject.components)} components")
        autoencoders = _dictionaries(sae, subject, eraser, about, model, output, retrain, defaults)
        found, erasure = found_and_made(eraser, subject, about, looks, autoencoders, seed, effort)
        step(f"erasure: {shown_name(erasure)}")
        report = signed(audit(subject, erasure, about, twin=control, recogniser=looks, found=found, plan=plan))
        report = replace(report, provenance={**report.provenance, **defaults.taken})
        write_report(report, output)
        if "default concept" in defaults.taken:
            save_concept(replace(about, examples=None), output / KIT_FILE)
        _save(erasure, output)
        print_verdict(report, output)
        err.print(f"{time.perf_counter() - started:.0f} s")


def _dictionaries(
    names: Sequence[str] | None, subject, eraser: str, concept, model: str, output: Path, retrain: bool, defaults: Defaults
):  # fmt: skip
    """Autoencoders by folder or shipped ones; else, or on demand, one trained here. An eraser that needs none has none."""
    from concept_probe.erasers import ERASERS

    if names or not retrain:
        try:
            return saes_of(names, subject)
        except LookupError:
            if names:
                raise
            if not needs_features(ERASERS[eraser]):
                return ()
    asked, told = _captions(subject, eraser, concept, model)
    return dictionary_of(subject, concept, asked, output / "sae", told, defaults)


def _captions(subject, eraser: str, concept, model: str):
    """What an autoencoder is trained on, and what that is called."""
    from concept_probe import testbed
    from concept_probe.concepts.captions import captions_around
    from concept_probe.concepts.embedded import prompts

    if model in (*testbed.EMBEDDED, *testbed.LANGUAGE_MODELS):
        return prompts(model)[::2], "every second embedded prompt"
    if subject.answers == "texts":
        raise ValueError(
            f"{eraser} on {subject.name} needs an autoencoder, and none ships for it; train one on texts like those it is used "
            f"for (concept-probe capture, concept-probe train), give it by --sae, or take --eraser {FIRST_CHOICE['texts']}"
        )
    asked = readable(subject, captions_around(concept))
    return asked, f"{len(asked):,} captions: the package's broad ones, and the concept's fit prompts"


def _work(
    names, subject, eraser: str, concept, model: str, retrain: bool, effort: Effort, plan, twin
) -> Iterator[Work]:
    """What `run` does, part by part."""
    from concept_probe import testbed
    from concept_probe.erasers import ERASERS
    from concept_probe.erasers.select.choose import CHOICE
    from concept_probe.erasers.select.strength import STRENGTH_CHOICE, STRENGTHS
    from concept_probe.evaluation.sight import PICTURES as LOOKED_AT

    texts, known = subject.answers == "texts", model in testbed.EMBEDDED
    if not texts and not known:
        yield Work("what a recogniser sees of the untouched model", 2 * LOOKED_AT)
    kind = ERASERS[eraser]
    shipped = bool(names) or (model in (*testbed.EMBEDDED, *testbed.LANGUAGE_MODELS) and not retrain)
    if retrain or (needs_features(kind) and not shipped):
        asked, _ = _captions(subject, eraser, concept, model)
        capture, training = dictionary_estimate(subject, asked)
        seconds = capture.seconds + (training.seconds or 0.0)
        yield Work("an autoencoder", seconds=seconds, disk=capture.bytes + training.weights, memory=training.bytes)
    if texts:
        made = kind(**GENTLE[eraser]) if eraser in GENTLE else kind()
        choice = effort.of(STRENGTH_CHOICE)
        yield from eraser_work(made, None)
        yield Work("choosing its strength", (len(STRENGTHS) + 1) * choice.images * 7 // 3)
    else:
        chosen = effort.of(CHOICE) if is_chosen(kind, "features") or is_chosen(kind, "vectors") else None
        yield from eraser_work(kind(), chosen, max(1, len(names or ())))
    yield from audit_work(plan, subject, concept, 2 if twin is None else 3)


def _save(erasure, output: Path) -> None:
    from concept_probe.erasers import Edit

    if isinstance(erasure, Edit):
        erasure.save(output / "edit")
