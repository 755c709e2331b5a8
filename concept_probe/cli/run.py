"""The whole flow in one command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from concept_probe.cli.audits import print_verdict, write_report
from concept_probe.cli.common import (
    ConceptFile,
    ConceptName,
    Model,
    Output,
    RecogniserName,
    Saes,
    Seed,
    command,
    concept_of,
    err,
    plain_errors,
    recogniser_of,
    saes_of,
    subject_of,
    twin_of,
)


def run(
    concept: ConceptName,
    output: Output,
    model: Model = "emoji",
    eraser: Annotated[str, typer.Option(help="An eraser, see `info erasers`.")] = "ablate_features",
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train the autoencoder anew instead of taking a shipped one.")
    ] = False,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    twin: Annotated[str | None, typer.Option(help="A model never taught the concept; `none` for no twin.")] = None,
    prompts: Annotated[int, typer.Option(help="Test prompts per kind.")] = 12,
    seeds: Annotated[int, typer.Option(help="Pictures per prompt.")] = 2,
    seed: Seed = 0,
) -> None:
    """Capture, learn, find, erase, attack, audit and report, for one concept.

    Examples:

    `concept-probe run camel --output camel-report`

    `concept-probe run church --model my-pipeline --concept-file church.json --recogniser clip:my-clip --retrain --output church-report`
    """
    with plain_errors():
        from concept_probe.audit import audit

        started = time.perf_counter()
        subject, about = subject_of(model), concept_of(concept, concept_file)
        looks = recogniser_of(recogniser, about)
        step(f"{subject.name}: {len(subject.components)} components")
        autoencoders = _retrained(subject, about, model, output) if retrain else _known(sae, subject, eraser)
        found, erasure = _erase(subject, about, looks, eraser, autoencoders, seed)
        step(f"erasure: {erasure.name}")
        report = audit(
            subject, erasure, about, twin=twin_of(twin, model, about), recogniser=looks, found=found, prompts=prompts,
            seeds=range(seeds), seed=seed, command=command(),
        )  # fmt: skip
        write_report(report, output)
        _save(erasure, output)
        print_verdict(report, output)
        err.print(f"{time.perf_counter() - started:.0f} s")


def step(text: str) -> None:
    err.print(text, style="dim", highlight=False, markup=False)


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
    from concept_probe.concepts import prompts
    from concept_probe.learn.recipe import default_site, train_on_subject
    from concept_probe.types import KINDS

    asked = (
        prompts(model)[::2] if model in testbed.NAMES else tuple(p for k in KINDS for p in concept.prompts(k, "fit"))
    )
    site = default_site(subject)
    step(f"training an autoencoder over {site} on {len(asked):,} prompts")
    return (train_on_subject(subject, asked, site, folder=output / "sae"),)


def _erase(subject, concept, looks, eraser: str, autoencoders, seed: int):
    """What was found and the erasure; feature ablation chooses features and strength on the select split."""
    from concept_probe.erase import choose_features, erase
    from concept_probe.find import find_features, find_vectors

    text = [s for s in autoencoders if s.site.component.startswith("text_encoder")]
    found = find_features(text, subject, concept, seed=seed) if text else ()
    if eraser == "ablate_features":
        choice = choose_features(subject, concept, text or autoencoders, recogniser=looks, seed=seed)
        step(f"chosen of {len(choice.tried)}: {choice.name}")
        return found, choice.erasure
    if eraser == "ablate_vectors":
        vectors = find_vectors(subject, concept, recogniser=looks, seed=seed)
        return (*found, *vectors), erase(eraser, subject, concept, vectors)
    return found, erase(eraser, subject, concept, found)


def _save(erasure, output: Path) -> None:
    from concept_probe.erase import Edit

    if isinstance(erasure, Edit):
        erasure.save(output / "edit")
