"""The arrows from an erasure to a report: attack, audit, report."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from concept_probe.cli.arrows import AsPublished, read_found
from concept_probe.cli.common import (
    ConceptFile,
    ConceptName,
    Model,
    PicturesPerPrompt,
    RecogniserName,
    Saes,
    Seed,
    Threads,
    concept_of,
    plain_errors,
    recogniser_of,
    twin_of,
    writable,
)
from concept_probe.cli.console import out, say
from concept_probe.cli.reports import REPORT_FILES, print_verdict, signed, write_report
from concept_probe.cli.shared.drawing import ClipSkip, GuidanceRescale, PictureSize, sampling_of, subject_of
from concept_probe.cli.shared.estimates import EstimateOnly, Work, attack_work, audit_work, eraser_work, say_estimate
from concept_probe.cli.shared.making import Effort, asked_method, is_chosen, made
from concept_probe.cli.shared.rounds import AtOnce, Looks, MostPictures, MostSeconds, rounds_of

EditPlace = Annotated[
    Path | None,
    typer.Option(
        "--edit",
        help="Folder of an edit that `erase` wrote; or an adapter or a checkpoint of others, a file or a folder, which is read "
        "as a change of MODEL.",
    ),
]
MethodToApply = Annotated[str | None, typer.Option(help="An eraser to apply, see `info erasers`; instead of --edit.")]
FoundFolder = Annotated[Path | None, typer.Option("--found", help="Folder that `find` wrote.")]
FIRST_TRIED = {"pictures": "embedding_inversion", "texts": "relearning"}
"""The attack where none is named, by what a subject answers with."""
PROMPTS = 12
"""Test prompts per kind; in rounds, where most are asked only if they are needed, twice as many."""
Queries = Annotated[int, typer.Option(min=0, help="Pictures, or texts, each attack may have made.")]
Steps = Annotated[int, typer.Option(min=0, help="Optimiser steps each attack may take.")]


def erasure_of(
    edit: Path | None, method, found: tuple, subject, concept, sae, recogniser, effort: Effort = Effort(),
):  # fmt: skip
    """The saved edit, what a file of others makes of the subject, or the erasure of a method, named or with its options."""
    from concept_probe.erasers.interop import read_edit

    if edit is not None and method is not None:
        raise ValueError("give an edit or a method, not both")
    if edit is not None:
        return read_edit(edit, subject, concept=concept.name)
    return None if method is None else made(method, subject, concept, recogniser, found, sae, effort)


def to_apply(method: str | None, published: bool):
    """The method that was asked for, or None. ValueError for published settings of nothing."""
    if published and method is None:
        raise ValueError("--published is about --method, and none was named")
    return None if method is None else asked_method(method, published)


def _made(applied, subject) -> list[Work]:
    """What making the erasure of a method takes, by name or with its options; nothing of an edit that is there.

    Raises as the making would for a method that can't work on the subject.
    """
    from concept_probe.erasers import ERASERS
    from concept_probe.erasers.select.choose import CHOICE

    if applied is None:
        return []
    eraser = ERASERS[applied]() if isinstance(applied, str) else applied
    eraser.refuse_unfit(subject)
    chosen = isinstance(applied, str) and is_chosen(type(eraser), "features")
    return eraser_work(eraser, CHOICE if chosen else None)


def attack(
    concept: ConceptName,
    name: Annotated[
        str | None,
        typer.Option(
            "--attack",
            help=f"An attack, see `info attacks`. Default: {FIRST_TRIED['pictures']}, or {FIRST_TRIED['texts']} for a language model.",
        ),
    ] = None,
    model: Model = "emoji",
    edit: EditPlace = None,
    method: MethodToApply = None,
    published: AsPublished = False,
    found: FoundFolder = None,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    queries: Queries = 80,
    steps: Steps = 60,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    estimate: EstimateOnly = False,
    threads: Threads = None,
) -> None:
    """Try to bring a concept back from an erased model within a budget.

    Examples:

    `concept-probe attack camel --method uce --attack relearning`

    `concept-probe attack mathematics --model smollm2 --method npo --attack quantisation`
    """
    with plain_errors():
        from concept_probe.attacks import ATTACKS, Budget
        from concept_probe.registry import look_up

        if name is not None:
            look_up(ATTACKS, name, "attack", "concept-probe info attacks")
        subject, about = subject_of(model, clip_skip, picture_size), concept_of(concept, concept_file, model)
        sampling, effort = sampling_of(subject, guidance_rescale), Effort(guidance_rescale=guidance_rescale)
        looks, applied = recogniser_of(recogniser, about, subject), to_apply(method, published)
        name = name or FIRST_TRIED[subject.answers]
        make = ATTACKS[name]
        if not make.suits(subject):
            raise ValueError(
                f"attack {name!r} is on {make.on}, and {subject.name!r} answers with {subject.answers}; "
                "`concept-probe info attacks` says which are on what"
            )
        if estimate:
            parts = [*_made(applied, subject), attack_work(name, queries, steps)]
            say_estimate(subject, sampling, parts)
        erasure = erasure_of(edit, applied, read_found(found, sae, subject), subject, about, sae, looks, effort)
        with contextlib.nullcontext() if erasure is None else erasure.on(subject):
            attempt = make(looks, sampling)(subject, about, Budget(queries=queries, gradient_steps=steps))
        table = Table(attempt.x_name, "success", "95 % interval", "n", title=f"{name} on {concept}")
        for x, score in attempt.curve:
            table.add_row(str(x), f"{score.value:.2f}", f"{score.low:.2f} – {score.high:.2f}", str(score.n))
        out.print(table)
        if attempt.control is not None:
            out.print(f"control, a random candidate under the same budget: {attempt.control}")
        if attempt.note:
            out.print(attempt.note)
        spent = attempt.spent
        out.print(
            f"spent: {spent.queries} {subject.answers}, {spent.gradient_steps} gradient steps, "
            f"{spent.examples} examples, {spent.seconds:.1f} s"
        )


def audit(
    concept: ConceptName,
    model: Model = "emoji",
    edit: EditPlace = None,
    method: MethodToApply = None,
    published: AsPublished = False,
    found: FoundFolder = None,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    original: Annotated[
        str | None, typer.Option(help="The model as it was before, if MODEL is an erased checkpoint.")
    ] = None,
    twin: Annotated[str | None, typer.Option(help="A model never taught the concept; `none` for no twin.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.html, .json and .md.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report's JSON to standard output, and nothing else.")
    ] = False,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Test prompts per kind. Default: 12, or at most 24 in rounds.")
    ] = None,
    seeds: PicturesPerPrompt = 2,
    rounds: Looks = None,
    at_once: AtOnce = False,
    max_pictures: MostPictures = None,
    max_seconds: MostSeconds = None,
    queries: Queries = 80,
    steps: Steps = 60,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", help="Attacks to run; `none` for none."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="A verdict that is good enough; for any other the command ends with status 1."),
    ] = None,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    seed: Seed = 0,
    estimate: EstimateOnly = False,
    threads: Threads = None,
) -> None:
    """Measure what is left of a concept, and give a verdict.

    Examples:

    `concept-probe audit camel --method uce --output camel-uce`

    `concept-probe audit camel --model emoji-untaught --original emoji --json`

    `concept-probe audit camel --edit camel-edit --require erased`

    `concept-probe audit church --model my-pipeline --edit church-lora.safetensors --concept-file church.json`

    `concept-probe audit camel --method uce --max-pictures 600`
    """
    with plain_errors():
        from concept_probe.attacks import Budget
        from concept_probe.auditing import AuditPlan
        from concept_probe.auditing import audit as run_audit
        from concept_probe.auditing.arm import refuse_others
        from concept_probe.registry import look_up
        from concept_probe.report import to_json
        from concept_probe.report.format import VERDICTS

        for name in require or ():
            look_up(VERDICTS, name, "verdict", "concept-probe audit --help")
        writable(output, files=REPORT_FILES)
        applied = to_apply(method, published)
        # Whatever a library prints while it works goes to standard error: standard output is the result's.
        with contextlib.redirect_stdout(sys.stderr):
            subject = subject_of(model, clip_skip, picture_size)
            about = concept_of(concept, concept_file, model, more=not at_once)
            sampling, effort = sampling_of(subject, guidance_rescale), Effort(guidance_rescale=guidance_rescale)
            looks = recogniser_of(recogniser, about, subject)
            asked = rounds_of(rounds, max_pictures, max_seconds, at_once, about, prompts, subject.answers)
            plan = AuditPlan(
                prompts=prompts or (PROMPTS if asked is None else 2 * PROMPTS), rounds=asked,
                seeds=tuple(range(seeds)), sampling=sampling, seed=seed,
                attacks=None if attacks is None else tuple(a for a in attacks if a != "none"),
                budget=Budget(queries=queries, gradient_steps=steps),
            )  # fmt: skip
            before = subject_of(original, clip_skip, picture_size) if original else None
            named = twin_of(twin, original or model, about)
            control = subject_of(named, clip_skip, picture_size) if named is not None else None
            refuse_others(subject, before, control)
            if estimate:
                arms = 1 + ((before or applied or edit) is not None) + (control is not None)
                parts = [*_made(applied, subject), *audit_work(plan, subject, about, arms)]
                say_estimate(subject, sampling, parts, output)
            known = read_found(found, sae, subject)
            erasure = erasure_of(edit, applied, known, subject, about, sae, looks, effort)
            report = run_audit(
                subject, erasure, about, original=before, twin=control, recogniser=looks, found=known, plan=plan
            )
            report = signed(report)
        if output is not None:
            write_report(report, output)
        if json:
            typer.echo(to_json(report))
        else:
            print_verdict(report, output)
        if require and report.verdict.name not in require:
            say("required", "bold red", f"{' or '.join(require)}; the verdict is {report.verdict.name}")
            raise typer.Exit(1)
