"""Sweeps on the command line: compare erasers, and render the rows that there are."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from concept_probe.cli.command_line import command
from concept_probe.cli.common import (
    ChoiceImages,
    ChoiceSteps,
    Model,
    Output,
    RecogniserName,
    Saes,
    concept_of,
    plain_errors,
    twin_of,
    writable,
)
from concept_probe.cli.console import bold, err, out, say
from concept_probe.cli.shared.drawing import ClipSkip, GuidanceRescale, PictureSize, rescaled, size_of
from concept_probe.cli.shared.estimates import REPORT_BYTES, EstimateOnly, Work, say_estimate
from concept_probe.cli.shared.making import Effort
from concept_probe.threads import use_threads
from concept_probe.types.plain_text import shown_plainly

Concepts = Annotated[list[str], typer.Argument(help="Concepts of the embedded models (see `info concepts`), or files.")]


def bench(
    concepts: Concepts,
    output: Output,
    model: Model = "emoji",
    erasers: Annotated[
        list[str] | None, typer.Option("--eraser", help="An eraser, see `info erasers`; may be repeated. Default: all.")
    ] = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", help="An attack, see `info attacks`; may be repeated; `none` for none. Default: all."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="How many seeds; all cells of one come before those of the next.")
    ] = 3,
    twin: Annotated[str | None, typer.Option(help="A model never taught the concepts; `none` for no twin.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of a picture.")] = 15,
    queries: Annotated[int, typer.Option(min=1, help="Answers each attack may have made in one cell.")] = 32,
    gradient_steps: Annotated[int, typer.Option(min=0, help="Optimiser steps each attack may take in one cell.")] = 16,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each takes cells that no other has.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(help="Put the workers on a Ray cluster: its address, `auto`, or `local` to start one here."),
    ] = None,
    recogniser: RecogniserName = None,
    sae: Saes = None,
    choice_images: ChoiceImages = None,
    choice_steps: ChoiceSteps = None,
    clip_skip: ClipSkip = 0,
    picture_size: PictureSize = None,
    guidance_rescale: GuidanceRescale = 0.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch per process.")] = None,
    estimate: EstimateOnly = False,
    retry: Annotated[bool, typer.Option("--retry-failed", help="Measure failed cells again.")] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Run nothing: the leaderboard of the rows there are.")
    ] = False,
) -> None:
    """Compare erasers: concepts x erasers x attacks x seeds, and a leaderboard; goes on where it was interrupted.

    Examples: `concept-probe bench camel pizza --eraser uce --eraser leace --output runs/two`

    The same command on another terminal, or on another machine with the same folder, shares the work.
    """
    with plain_errors():
        from concept_probe.bench import RowStore, estimate_sweep

        effort = Effort(choice_images, choice_steps, guidance_rescale)
        order = _order(concepts, output, model, erasers, attacks, seeds, twin, steps, queries, gradient_steps, effort)
        order = replace(
            order,
            retry=retry,
            threads=threads,
            recogniser=recogniser,
            saes=tuple(sae or ()),
            clip_skip=clip_skip,
            picture_size=size_of(picture_size),
        )
        writable(output, files=("rows.jsonl", "fits/", "leaderboard.html", "leaderboard.json", "leaderboard.md"))
        use_threads(threads)
        sweep = order.sweep()
        rescaled(sweep.subject, order.grid.settings.sampling, guidance_rescale)  # refused where it can't be
        keys = sweep.keys()
        if not summary:
            expected = estimate_sweep(sweep)
            err.print(str(expected), highlight=False)
            if estimate:
                held = Work("rows and leaderboard", seconds=expected.seconds, disk=REPORT_BYTES)
                say_estimate(sweep.subject, order.grid.settings.sampling, [held], output)
            _run(order, sweep, len(keys), workers, ray)
        rows = [row for key, row in RowStore(order.rows).rows().items() if key in keys]
        failed = sum(row.status == "failed" for row in rows)
        apart = sum(row.status == "does not apply" for row in rows)
        err.print(
            f"{len(rows)} of {len(keys)} cells in {order.rows}"
            + (f", {failed} of them failed" if failed else "")
            + (f", {apart} do not apply" if apart else "")
        )
        _write(rows, order, output)


def _run(order, sweep, total: int, workers: int, ray: str | None) -> None:
    """Measure what is missing, with a bar that also counts what other processes finish."""
    from concept_probe.bench import RowStore, helpers, over_ray

    keys = sweep.keys().keys()
    beside = helpers(order, workers - 1) if ray is None else contextlib.nullcontext()
    with beside, _bar() as bar:
        task = bar.add_task("cells", total=total, completed=len(RowStore(order.rows).rows().keys() & keys))
        rows = sweep.run(retry=order.retry) if ray is None else over_ray(order, ray, workers=workers, sweep=sweep)
        for row in rows:
            if row.status == "failed":
                say("failed", "yellow", f"{row.eraser}, {row.concept}, {row.attack}: {row.error}")
            finished = len(RowStore(order.rows).rows().keys() & keys)
            bar.update(
                task, completed=finished, description=shown_plainly(f"{row.eraser}, {row.concept}, {row.attack}")
            )


def _write(rows, order, output: Path) -> None:
    """leaderboard.html, .md and .json, each written beside and renamed; the table in the terminal."""
    from concept_probe.bench.board.leaderboard import leaderboard
    from concept_probe.report import write_board

    ours = [e.name for e in order.grid.methods if e.ours]
    told = {"command": command(), "settings": str(order.grid.settings)}
    board = leaderboard(rows, subject=order.subject, ours=ours, provenance=told)
    write_board(output, board)
    print_board(board)
    err.print(f"leaderboard: {output / 'leaderboard.html'}")


def print_board(board) -> None:
    """The leaderboard as a table in the terminal."""
    table = Table("eraser", "erased", "other words", "kept", "recovered", "worst attack", "fit, s")

    def percent(s):
        return "–" if s is None else f"{s.value:.0%}"

    for s in board.standings:
        name = bold(s.name) if s.part == "ours" else s.name
        worst = "–" if s.worst is None else f"{percent(s.worst)} {s.worst.name}"
        fit = f"{s.costs.get('seconds', 0.0):.1f}"
        table.add_row(name, *map(percent, (s.erased, s.general, s.kept, s.recovered)), worst, fit)
    out.print(table)


def _order(concepts, output: Path, model, erasers, attacks, seeds, twin, steps, queries, gradient_steps, effort):
    from concept_probe.attacks import ATTACKS, Budget
    from concept_probe.bench import AttackSetting, Grid, SweepOrder, SweepSettings, method_settings
    from concept_probe.concepts.files import load_concept
    from concept_probe.erasers.select.choose import CHOICE
    from concept_probe.types import Sampling

    found = tuple(load_concept(c) if c.endswith(".json") else concept_of(c, None, model) for c in concepts)
    twins = {twin_of(twin, model, concept) for concept in found}
    control = twins.pop() if len(twins) == 1 else None
    named = tuple(ATTACKS) if attacks is None else tuple(a for a in attacks if a != "none")
    choice = None if effort == Effort() else effort.of(CHOICE)
    sampling = Sampling(steps=steps, guidance_rescale=effort.guidance_rescale)
    grid = Grid(
        found, method_settings(erasers or (), choice), tuple(AttackSetting(name, name) for name in named), tuple(range(seeds)),
        SweepSettings(sampling, budget=Budget(queries=queries, gradient_steps=gradient_steps)),
        control is not None,
    )  # fmt: skip
    return SweepOrder(grid, model, control, output, output / "rows.jsonl")


@contextlib.contextmanager
def _bar():
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield bar
