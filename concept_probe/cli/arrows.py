"""The arrows from prompts to an erasure: capture, train, find, erase."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from concept_probe.cli.common import (
    ConceptFile,
    ConceptName,
    Model,
    Output,
    RecogniserName,
    Saes,
    Seed,
    concept_of,
    err,
    plain_errors,
    recogniser_of,
    saes_of,
    subject_of,
)

Roles = Annotated[list[str] | None, typer.Option("--role", help="Role of the sites to capture; may be repeated.")]
Method = Annotated[str, typer.Option(help="An eraser, see `concept-probe info erasers`.")]


def capture(
    output: Output,
    model: Model = "emoji",
    role: Roles = None,
    site: Annotated[list[str] | None, typer.Option(help="Address of a site; may be repeated.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="Text file, one prompt a line. Default: the embedded prompts.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many prompts, evenly spread.")] = None,
) -> None:
    """Store activations of a model over prompts.

    Example: `concept-probe capture --output acts --role text_stream --limit 2000`
    """
    with plain_errors():
        from concept_probe.capture import capture as run_capture
        from concept_probe.concepts import prompts as embedded
        from concept_probe.types import Prompt, Site

        subject = subject_of(model)
        if prompt_file is not None:
            asked = tuple(Prompt(line.strip()) for line in prompt_file.read_text().splitlines() if line.strip())
        else:
            asked = embedded(model)
        if limit is not None and limit < len(asked):
            asked = tuple(asked[i * len(asked) // limit] for i in range(limit))
        sites = [Site.parse(s) for s in site or ()]
        roles = role or ([] if sites else ["text_stream"])
        store = run_capture(subject, asked, roles=roles, sites=sites, folder=output)
        table = Table("site", "rows", "width")
        for s in store.sites:
            table.add_row(str(s), f"{store.rows(s):,}", str(store.width(s)))
        err.print(table)
        err.print(f"{len(asked):,} prompts in {output}")


def train(
    store: Annotated[Path, typer.Argument(help="Folder that `capture` wrote.")],
    output: Output,
    site: Annotated[str | None, typer.Option(help="Address of the site; needed if the store holds several.")] = None,
    k: Annotated[int, typer.Option(help="Active features per row.")] = 16,
    expansion: Annotated[int, typer.Option(help="Features per dimension.")] = 16,
    samples: Annotated[int, typer.Option(help="Rows to train on.")] = 2_000_000,
    seed: Seed = 0,
) -> None:
    """Train a sparse autoencoder on stored activations; an interrupted run goes on where it was.

    Example: `concept-probe train acts --output sae --site text_encoder/encoder.layers.0:out`
    """
    with plain_errors():
        from concept_probe.capture import Activations
        from concept_probe.learn import evaluate_sae, train_sae
        from concept_probe.types import Site

        acts = Activations.open(store)
        chosen = Site.parse(site) if site is not None else None
        if chosen is None and len(acts.sites) > 1:
            raise ValueError(
                f"the store holds {len(acts.sites)} sites, name one with --site: {', '.join(map(str, acts.sites))}"
            )
        chosen = chosen or next(iter(acts.sites))
        sae = train_sae(acts, site=chosen, k=k, expansion=expansion, samples=samples, seed=seed, folder=output)
        err.print(f"autoencoder of {sae.width:,} features over {sae.site} in {output}")
        rows = acts.read(chosen).x[:65536]
        explained = 1 - float((rows - sae(rows)).square().sum() / (rows - rows.mean(0)).square().sum())
        err.print(
            f"explains {explained:.1%} of the variance of rows it was trained on; "
            f"judge it on others with concept_probe.{evaluate_sae.__name__}"
        )


def find(
    concept: ConceptName,
    output: Output,
    model: Model = "emoji",
    what: Annotated[
        str, typer.Option(help="features, columns (of text-encoder feed-forward layers) or cross (attention K/V).")
    ] = "features",
    count: Annotated[int | None, typer.Option(help="How many features; default: as many as are selective.")] = None,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    seed: Seed = 0,
) -> None:
    """Find where a concept lives: features of an autoencoder, or concept vectors that are causal on pictures.

    Example: `concept-probe find camel --what columns --output camel-vectors`
    """
    with plain_errors():
        from concept_probe.find import find_features, find_vectors
        from concept_probe.find.files import save_found
        from concept_probe.registry import look_up

        subject, about = subject_of(model), concept_of(concept, concept_file)
        roles = look_up(
            {"features": None, "columns": "mlp_value", "cross": ("cross_key_weight", "cross_value_weight")},
            what,
            "kind of finding",
        )
        if roles is None:
            found = find_features(saes_of(sae, subject), subject, about, count=count, seed=seed)
        else:
            found = find_vectors(subject, about, recogniser=recogniser_of(recogniser, about), role=roles, seed=seed)
        if not found:
            err.print(f"nothing in {model} is both selective and causal for {concept!r}; nothing was written")
            raise typer.Exit(1)
        save_found(found, output)
        table = Table("site", "rank", "score", title=f"{concept} in {model}")
        for space in found[:20]:
            table.add_row(str(space.site), str(space.rank), str(space.score))
        err.print(table)
        err.print(f"{len(found)} subspaces in {output}")


def erase(
    concept: ConceptName,
    output: Output,
    model: Model = "emoji",
    method: Method = "uce",
    found: Annotated[Path | None, typer.Option(help="Folder that `find` wrote, for methods that need one.")] = None,
    sae: Saes = None,
    concept_file: ConceptFile = None,
) -> None:
    """Make an edit of the weights that removes a concept, and save it.

    Example: `concept-probe erase camel --method uce --output camel-edit`

    Methods that act only while the model runs (feature ablation, blocklist) have no weights to save:
    give them to `audit --method` instead.
    """
    with plain_errors():
        from concept_probe.erase import Edit
        from concept_probe.erase import erase as make

        subject, about = subject_of(model), concept_of(concept, concept_file)
        erasure = make(method, subject, about, read_found(found, sae, subject))
        if not isinstance(erasure, Edit):
            raise ValueError(
                f"{method} acts while the model runs and changes no weights, so there is nothing to save; "
                f"use it with: concept-probe audit {concept} --method {method}"
            )
        erasure.save(output)
        err.print(f"edit {erasure.name} of {len(erasure.deltas)} parameters in {output}")


def read_found(folder: Path | None, sae: list[Path] | None, subject) -> tuple:
    """What `find` wrote; its autoencoders are loaded only if it needs any."""
    if folder is None:
        return ()
    from concept_probe.find.files import load_found

    try:
        return load_found(folder)
    except ValueError as error:
        if "autoencoder" not in str(error):
            raise
        return load_found(folder, saes_of(sae, subject))
