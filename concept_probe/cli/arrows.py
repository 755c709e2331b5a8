"""The arrows from prompts to an erasure: capture, train, find, erase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from concept_probe.cli.common import (
    ConceptFile,
    ConceptName,
    Model,
    Output,
    PromptFile,
    RecogniserName,
    Saes,
    Seed,
    Threads,
    concept_in,
    concept_of,
    plain_errors,
    recogniser_of,
    saes_of,
    writable,
)
from concept_probe.cli.console import err
from concept_probe.cli.shared.drawing import ClipSkip, GuidanceRescale, PictureSize, rescaled, subject_of
from concept_probe.cli.shared.estimates import EstimateOnly, eraser_work, features_work, find_work, say_estimate

Roles = Annotated[list[str] | None, typer.Option("--role", help="Role of the sites to capture; may be repeated.")]
DTYPES = ("float32", "float16", "bfloat16")
Method = Annotated[str, typer.Option(help="An eraser, see `concept-probe info erasers`.")]
AsPublished = Annotated[
    bool,
    typer.Option("--published", help="With the settings of those who published it, see `info published`."),
]


def capture(
    output: Output,
    model: Model = "emoji",
    role: Roles = None,
    site: Annotated[list[str] | None, typer.Option(help="Address of a site; may be repeated.")] = None,
    prompt_file: PromptFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many prompts, evenly spread.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Token kind to keep; may be repeated. Default: all.")] = None,
    step: Annotated[
        list[int] | None, typer.Option(help="Pass of the denoiser to keep, from 0; may be repeated. Default: all.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16, in which rows are stored.")] = "float32",
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    estimate: EstimateOnly = False,
    threads: Threads = None,
) -> None:
    """Store activations of a model over prompts; says first what that takes.

    Example: `concept-probe capture --output acts --role text_stream --limit 2000`
    """
    with plain_errors():
        import torch

        from concept_probe.activations import CaptureOptions, estimate_capture
        from concept_probe.activations import capture as run_capture
        from concept_probe.activations.rows import chosen_sites
        from concept_probe.concepts.embedded import prompts as embedded
        from concept_probe.concepts.prompt_files import PromptList, read_prompts
        from concept_probe.families.subject import SAMPLING
        from concept_probe.registry import look_up
        from concept_probe.types import Site, evenly

        stored = look_up({name: getattr(torch, name) for name in DTYPES}, dtype, "dtype")
        writable(output, "a capture")
        subject = subject_of(model, clip_skip, picture_size)
        listed = PromptList.of(embedded(model)) if prompt_file is None else read_prompts(prompt_file)
        listed = listed if limit is None else listed.chosen(evenly(range(len(listed.queries)), limit))
        asked = listed.queries
        sites = [Site.parse(s) for s in site or ()]
        roles = role or ([] if sites else ["text_stream"])
        options = CaptureOptions(steps=step or None, dtype=stored)
        drawn = not all(subject.is_text(s) for s in chosen_sites(subject, roles, sites))
        sampling = rescaled(subject, SAMPLING, guidance_rescale, drawn=drawn)
        sampling = listed.sampling(sampling) if drawn else sampling  # texts are read without guidance
        wanted = {"roles": roles, "sites": sites, "kinds": kind or None, "sampling": sampling, "options": options}
        expected = estimate_capture(subject, asked, **wanted)
        err.print(str(expected), highlight=False)
        expected.check_room(output)
        if estimate:
            raise typer.Exit
        store = run_capture(subject, asked, folder=output, **wanted)
        table = Table("site", "rows", "width")
        for s in store.sites:
            table.add_row(str(s), f"{store.rows(s):,}", str(store.width(s)))
        err.print(table)
        err.print(f"{len(asked):,} prompts in {output}")


def train(
    store: Annotated[Path, typer.Argument(help="Folder that `capture` wrote.")],
    output: Output,
    site: Annotated[str | None, typer.Option(help="Address of the site; needed if the store holds several.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Active features per row.")] = 16,
    expansion: Annotated[int, typer.Option(min=1, help="Features per dimension.")] = 16,
    samples: Annotated[int, typer.Option(min=1, help="Rows to train on.")] = 2_000_000,
    batch: Annotated[int, typer.Option(min=1, help="Rows of one step.")] = 1024,
    seed: Seed = 0,
    estimate: EstimateOnly = False,
    threads: Threads = None,
) -> None:
    """Train a sparse autoencoder on stored activations; says first what that takes, goes on where it was interrupted.

    Example: `concept-probe train acts --output sae --site text_encoder/encoder.layers.0:out`
    """
    with plain_errors():
        import torch

        from concept_probe.activations import Activations
        from concept_probe.activations.store import WINDOW
        from concept_probe.learn import TrainingOptions, estimate_training, evaluate_sae, train_sae
        from concept_probe.learn.train.timing import step_seconds
        from concept_probe.types import Site

        writable(output, "an autoencoder")
        acts = Activations.open(store)
        chosen = Site.parse(site) if site is not None else None
        if chosen is None and len(acts.sites) > 1:
            raise ValueError(
                f"the store holds {len(acts.sites)} sites, name one with --site: {', '.join(map(str, acts.sites))}"
            )
        chosen = chosen or next(iter(acts.sites))
        d, held = acts.width(chosen), min(WINDOW, acts.rows(chosen))
        seconds = step_seconds(d, k=k, expansion=expansion, batch=batch) if estimate else None
        expected = estimate_training(
            d, d * expansion, k, batch, samples, dtype=acts.dtype, rows=held, step_seconds=seconds
        )
        err.print(str(expected), highlight=False)
        expected.check_memory(torch.device("cpu"))
        if estimate:
            err.print(f"{expected.weights / 1e9:.2f} GB on disk", highlight=False)
            raise typer.Exit
        options = TrainingOptions(batch=batch, seed=seed)
        sae = train_sae(acts, site=chosen, k=k, expansion=expansion, samples=samples, folder=output, options=options)
        err.print(f"autoencoder of {sae.width:,} features over {sae.site} in {output}")
        rows = next(acts.batches(chosen, held)).float()
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
        str, typer.Option(help="features, columns (of feed-forward layers) or cross (attention K/V).")
    ] = "features",
    count: Annotated[
        int | None, typer.Option(min=1, help="How many features; default: as many as are selective.")
    ] = None,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    recogniser: RecogniserName = None,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    seed: Seed = 0,
    estimate: EstimateOnly = False,
    threads: Threads = None,
) -> None:
    """Find where a concept lives: features of an autoencoder, or concept vectors that pictures or answers need.

    Examples: `concept-probe find camel --what columns --output camel-vectors`,
    `concept-probe find "Harry Potter" --model smollm2 --what columns --output potter-vectors`
    """
    with plain_errors():
        from concept_probe.evaluation.selection import Selection
        from concept_probe.families.subject import SAMPLING
        from concept_probe.find import RowQuery, find_features, find_lm_columns, find_vectors
        from concept_probe.find.files import save_found
        from concept_probe.registry import look_up

        writable(output, "what was found")
        subject, about = subject_of(model, clip_skip, picture_size), concept_of(concept, concept_file, model)
        sampling = rescaled(subject, SAMPLING, guidance_rescale)
        roles = look_up(
            {"features": None, "columns": "mlp_value", "cross": ("cross_key_weight", "cross_value_weight")},
            what,
            "kind of finding",
        )
        if estimate:
            if roles is None:
                parts = features_work(subject, about, sampling, saes_of(sae, subject))
            elif subject.answers == "texts":
                raise ValueError(
                    f"how many removals of columns {subject.name} needs isn't known before they are ranked; nothing was run"
                )
            else:
                parts = [find_work(subject, about, roles, Selection(seed=seed, sampling=sampling))]
            say_estimate(subject, sampling, parts, output)
        if subject.answers == "texts" and roles == "mlp_value":
            found = find_lm_columns(cast(Any, subject), about, seed=seed)
        elif roles is None:
            which = RowQuery(sampling=sampling)
            found = find_features(saes_of(sae, subject), subject, about, count=count, which=which, seed=seed)
        else:
            found = find_vectors(
                subject,
                about,
                recogniser=recogniser_of(recogniser, about, subject),
                role=roles,
                selection=Selection(seed=seed, sampling=sampling),
            )
        if not found:
            err.print(f"nothing in {model} is both selective and causal for {concept!r}; nothing was written")
            raise typer.Exit(1)
        save_found(found, output)
        table = Table("site", "rank", "score", title=f"{concept} in {model}")
        for space in found[:20]:
            table.add_row(str(space.site), str(space.rank), str(space.score))
        err.print(table)
        err.print(f"{len(found)} subspace{'s' if len(found) > 1 else ''} in {output}")


def erase(
    concept: ConceptName,
    output: Output,
    model: Model = "emoji",
    method: Method = "uce",
    published: AsPublished = False,
    found: Annotated[Path | None, typer.Option(help="Folder that `find` wrote, for methods that need one.")] = None,
    sae: Saes = None,
    concept_file: ConceptFile = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also", help="Another concept to erase in the same edit: a name, or a concept file; may be repeated."
        ),
    ] = None,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    estimate: EstimateOnly = False,
    threads: Threads = None,
) -> None:
    """Make an edit of the weights that removes a concept, or several at once, and save it.

    Examples:

    `concept-probe erase camel --method uce --output camel-edit`

    `concept-probe erase camel --method uce --published --output camel-as-published`

    `concept-probe erase camel --also rocket --also pizza --method speed --output three-edit`

    Methods that act only while the model runs (feature ablation, blocklist) have no weights to save:
    give them to `audit --method` instead.
    """
    with plain_errors():
        from concept_probe.erasers import ERASERS, Edit
        from concept_probe.erasers import erase as make
        from concept_probe.erasers.erasure.provenance import shown_name
        from concept_probe.families.subject import SAMPLING
        from concept_probe.registry import look_up

        writable(output, "an edit")
        kind = look_up(ERASERS, method, "eraser", "concept-probe info erasers")
        eraser = kind.published() if published else kind()
        no_edit = kind.makes == "guard"  # told before hours are spent on it
        subject, about = subject_of(model, clip_skip, picture_size), [concept_of(concept, concept_file, model)]
        about += [concept_in(other, model) for other in also or ()]
        sampling = rescaled(subject, SAMPLING, guidance_rescale)
        eraser.refuse_unfit(subject)
        if estimate and not no_edit:
            say_estimate(subject, sampling, eraser_work(eraser, None), output)
        erasure = None if no_edit else make(eraser, subject, about, read_found(found, sae, subject), sampling=sampling)
        if not isinstance(erasure, Edit):
            raise ValueError(
                f"{method} acts while the model runs and changes no weights, so there is nothing to save; "
                f"use it with: concept-probe audit {concept} --method {method}"
            )
        erasure.save(output)
        err.print(f"edit {shown_name(erasure)} of {len(erasure.deltas)} parameters in {output}")


def read_found(folder: Path | None, sae: Sequence[str] | None, subject) -> tuple:
    """What `find` wrote; its autoencoders are loaded only if it needs any."""
    if folder is None:
        return ()
    from concept_probe.find.files import has_features, load_found

    return load_found(folder, saes_of(sae, subject) if has_features(folder) else ())
