"""The whole flow in one command."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from concept_probe.cli.audits import print_verdict, signed, write_report
from concept_probe.cli.common import (
    ConceptFile,
    ConceptName,
    Model,
    Output,
    PicturesPerPrompt,
    RecogniserName,
    Saes,
    Seed,
    concept_of,
    err,
    plain_errors,
    recogniser_of,
    saes_of,
    sampling_of,
    subject_of,
    twin_of,
    writable,
    writes,
)

PICTURES, TEXTS = 12, 20
"""Test prompts per kind: a text costs less than a picture, and facts are few."""


def run(
    concept: ConceptName,
    output: Output,
    model: Model = "emoji",
    eraser: Annotated[
        str | None,
        typer.Option(help="An eraser, see `info erasers`. Default: ablate_features, or npo for a language model."),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train the autoencoder anew instead of taking a shipped one.")
    ] = False,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    twin: Annotated[str | None, typer.Option(help="A model never taught the concept; `none` for no twin.")] = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="Test prompts per kind. Default: 12, or 20 for a language model.")
    ] = None,
    seeds: PicturesPerPrompt = 2,
    seed: Seed = 0,
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
        from concept_probe.registry import look_up

        started = time.perf_counter()
        writable(output)
        if eraser is not None:
            look_up(ERASERS, eraser, "eraser", "concept-probe info erasers")
        about = concept_of(concept, concept_file, model)
        subject = subject_of(model)
        texts = writes(subject)
        eraser = eraser or ("npo" if texts else "ablate_features")
        looks = recogniser_of(recogniser, about)
        untaught = twin_of(twin, model, about)
        control = subject_of(untaught) if untaught is not None else None
        step(f"{subject.name}: {len(subject.components)} components")
        autoencoders = _retrained(subject, about, model, output) if retrain else _known(sae, subject, eraser)
        make = _erase_answers if texts else _erase
        found, erasure = make(subject, about, looks, eraser, autoencoders, seed)
        step(f"erasure: {erasure.name}")
        plan = AuditPlan(
            prompts=prompts or (TEXTS if texts else PICTURES), seeds=tuple(range(seeds)), seed=seed,
            sampling=sampling_of(subject),
            budget=Budget(queries=36, gradient_steps=12, examples=4) if texts else Budget(),
        )  # fmt: skip
        report = signed(audit(subject, erasure, about, twin=control, recogniser=looks, found=found, plan=plan))
        write_report(report, output)
        _save(erasure, output)
        print_verdict(report, output)
        err.print(f"{time.perf_counter() - started:.0f} s")


def step(text: str) -> None:
    err.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def _known(sae: list[Path] | None, subject, eraser: str):
    """Autoencoders by folder or shipped ones; an eraser that needs none runs without."""
    try:
        return saes_of(sae, subject)
    except LookupError:
        if eraser == "ablate_features":
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


def _erase(subject, concept, looks, eraser: str, autoencoders, seed: int):
    """What was found and the erasure; both ablations choose how much and how strongly on the select split."""
    from concept_probe.erasers import choose_features, choose_vectors, erase
    from concept_probe.erasers.select.choose import CHOICE
    from concept_probe.find import find_features
    from concept_probe.learn import over_text

    saes = over_text(autoencoders)
    found = find_features(saes, subject, concept, seed=seed) if saes else ()
    if eraser == "ablate_features":
        choice = choose_features(subject, concept, saes, recogniser=looks, selection=replace(CHOICE, seed=seed))
        step(f"chosen of {len(choice.screened)}: {choice.name}")
        return found, choice.erasure
    if eraser == "ablate_vectors":
        choice = choose_vectors(subject, concept, recogniser=looks, selection=replace(CHOICE, seed=seed))
        if choice is not None:
            step(f"chosen of {len(choice.screened)}: {choice.name}")
            return (*found, *choice.found), choice.erasure
    return found, erase(eraser, subject, concept, found)


def _erase_answers(subject, concept, looks, eraser: str, autoencoders, seed: int):
    """What was found and the erasure, of a language model: its strength is chosen on the select split.

    Columns are looked for where they are to be ablated.
    """
    from concept_probe.erasers import choose_strength, erase
    from concept_probe.erasers.select.strength import STRENGTH_CHOICE
    from concept_probe.find import find_features, find_lm_columns

    found = tuple(find_features(autoencoders, subject, concept, seed=seed)) if autoencoders else ()
    if eraser in ("ablate_vectors", "needle"):
        step(f"looking for columns that answers on {concept.name} need")
        columns = find_lm_columns(subject, concept, seed=seed)
        if not columns:
            raise LookupError(
                f"no columns of {subject.name} were found that answers on {concept.name!r} need more than random ones, so "
                "there is nothing to ablate; take another eraser, such as --eraser npo"
            )
        step(f"{len(columns)} columns found")
        found = (*found, *columns)
    step(f"making an erasure by {eraser}")
    made = erase(_gentle(seed) if eraser == "npo" else eraser, subject, concept, found)
    step("choosing its strength")
    selection = replace(STRENGTH_CHOICE, sampling=sampling_of(subject), seed=seed)
    choice = choose_strength(subject, concept, made, recogniser=looks, selection=selection)
    for tried in choice.tried:
        step(
            f"{tried.name}: {tried.residual():.0%} of the concept's answers right, others keep {tried.retention():.0%}"
        )
    return found, choice.erasure


def _gentle(seed: int):
    """Negative preference optimisation in few small steps, with other texts held where they are: minutes, and no wreck."""
    from concept_probe.erasers import Npo

    return Npo(steps=16, rate=0.003, keep="kl", seed=seed)


def _save(erasure, output: Path) -> None:
    from concept_probe.erasers import Edit

    if isinstance(erasure, Edit):
        erasure.save(output / "edit")
