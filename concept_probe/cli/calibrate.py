"""Calibrate the audit's verdict on subjects whose truth is known."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from concept_probe.cli.common import Output, plain_errors, writable
from concept_probe.cli.console import err, out
from concept_probe.cli.shared.estimates import EstimateOnly, Work, audit_work, say_estimate
from concept_probe.threads import use_threads

if TYPE_CHECKING:
    from concept_probe.bench.calibration.run import CalibrationRun


def calibrate(
    output: Output,
    summary: Annotated[bool, typer.Option("--summary", help="Run nothing: what the rows there are come to.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    estimate: EstimateOnly = False,
) -> None:
    """Audit models whose truth is known, and say how often the verdict is right; goes on where it was interrupted.

    Example: `concept-probe calibrate --output runs/calibration`

    The models are `emoji` and its never-taught twin: as they are, fine-tuned on other things, rounded to 8 bits,
    under guards and edits, and broken.
    """
    with plain_errors():
        from concept_probe.bench import RowStore
        from concept_probe.bench.calibration.roc import calibration, calibration_to_json, wrong
        from concept_probe.bench.calibration.run import CalibrationRun, line_of
        from concept_probe.storage import write_text

        writable(output, files=("rows.jsonl", "calibration.json"))
        use_threads(threads)
        store = RowStore(output / "rows.jsonl")
        if estimate:
            _say_what_it_takes(CalibrationRun(store), output)
        if not summary:
            for row in CalibrationRun(store).rows():
                err.print(line_of(row), soft_wrap=True)
        rows = list(store.rows().values())
        found = calibration(rows)
        write_text(output / "calibration.json", calibration_to_json(found))
        print_calibration(found, rows, out)
        for row in wrong(rows):
            out.print(f"wrong: {line_of(row)}")
        err.print(f"calibration: {output / 'calibration.json'}")


def _say_what_it_takes(run: CalibrationRun, output: Path) -> None:
    """As many audits as there are cases without a row, each of three models, by answers of `emoji`."""
    from concept_probe.bench.calibration.ground_truth import cases
    from concept_probe.concepts.embedded import concept
    from concept_probe.families import load

    finished = run.store.rows()
    left = sum(run.key(case) not in finished for case in cases())
    subject = load("emoji")
    each = audit_work(run.plan, subject, concept("camel"), 3)
    parts = [Work(f"{left} × {p.what}", left * p.answers, left * p.gradient_steps) for p in each]
    say_estimate(subject, run.plan.sampling, parts, output)


def print_calibration(found, rows, console: Console) -> None:
    """ROC per kind of evidence, and what the verdicts were."""
    table = Table(
        "evidence", "AUROC", "threshold", "any of", "false positives", "false negatives", title="present against absent"
    )
    for name, roc in {"residual (largest)": found.residual, **found.evidence}.items():
        low, high = roc.between
        table.add_row(
            name, f"{roc.auroc:.3f}", f"{roc.threshold:.2f}", f"{low:.2f} – {high:.2f}", str(roc.false_positive),
            str(roc.false_negative),
        )  # fmt: skip
    console.print(table)
    verdicts = ("intact", "suppressed", "erased", "damaged", "undecided")
    done = [r.values for r in rows if r.status == "done"]
    costs = ("rounds", "answers") if done and all("rounds" in v for v in done) else ()
    table = Table("truth", *verdicts, *(f"{cost}, mean" for cost in costs), title="verdicts")
    for truth in dict.fromkeys(v["truth"] for v in done):
        of = [v for v in done if v["truth"] == truth]
        said = [v["verdict"] for v in of]
        means = (f"{fmean(v[cost] for v in of):.3g}" for cost in costs)
        table.add_row(truth, *(str(said.count(v)) for v in verdicts), *means)
    console.print(table)
    console.print(str(found), highlight=False)
    if found.samples:
        console.print(
            f"undecided verdicts asked for {found.samples['median']:.0f} answers in the median, at most "
            f"{found.samples['most']:.0f}", highlight=False,
        )  # fmt: skip
