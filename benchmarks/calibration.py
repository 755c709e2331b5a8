"""Calibrate the audit's verdict on subjects of `emoji` whose truth is known; go on where it was interrupted.

    python benchmarks/calibration.py [--write FILE]
    python benchmarks/calibration.py --summary
    python benchmarks/calibration.py --rounds [--summary]

Present: `emoji`, also fine-tuned for one epoch on other objects, also rounded to 8 bits, also under an eraser too weak to
matter. Suppressed: blocklist, negative prompt, UCE. Absent: the never-taught twin over its removed objects, compared with
another never-taught model. Damaged: an edit at twenty times its strength, noise in the weights.
Rows are appended to benchmarks/rows/calibration.jsonl, those of audits in rounds to calibration_in_rounds.jsonl, and never
measured twice. With `--summary` nothing is run. `--write` stores the outcome, for the package as
concept_probe/auditing/calibration.json or calibration_in_rounds.json. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from concept_probe.bench.calibration.roc import by_state, calibration, calibration_to_json, wrong
from concept_probe.bench.calibration.run import CALIBRATION_IN_ROUNDS, CALIBRATION_PLAN, CalibrationRun, line_of
from concept_probe.bench.sweep.store import RowStore, SweepRow
from concept_probe.cli.calibrate import print_calibration
from concept_probe.threads import use_threads

ROWS = Path(__file__).parent / "rows" / "calibration.jsonl"
ROWS_IN_ROUNDS = ROWS.with_name("calibration_in_rounds.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", action="store_true", help="audits that ask in rounds")
    parser.add_argument("--rows", type=Path, help="where finished rows are kept")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--summary", action="store_true", help="print what the stored rows come to, run nothing")
    parser.add_argument("--write", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    options.rows = options.rows or (ROWS_IN_ROUNDS if options.rounds else ROWS)
    if not options.summary:
        run(options)
    summarise(list(RowStore(options.rows).rows().values()), options.write)


def run(options: argparse.Namespace) -> None:
    """Audit what has no row yet."""
    use_threads(options.threads)
    console = Console(stderr=True)
    plan = CALIBRATION_IN_ROUNDS if options.rounds else CALIBRATION_PLAN
    for row in CalibrationRun(RowStore(options.rows), plan).rows():
        console.print(line_of(row), highlight=False, markup=False, soft_wrap=True)


def summarise(rows: list[SweepRow], target: Path | None) -> None:
    """Print ROC per kind of evidence and what the verdicts were; one line of JSON; store the outcome if asked."""
    found, console = calibration(rows), Console(width=140)
    print_calibration(found, rows, console)
    for row in wrong(rows):
        console.print(f"wrong: {line_of(row)}; {row.values['reasons'][0]}", highlight=False, markup=False)
    if target is not None:
        target.write_text(calibration_to_json(found), encoding="utf-8")
    print(
        json.dumps(
            {
                "auroc": found.residual.auroc,
                "wrong": len(wrong(rows)),
                "subjects": found.cases,
                "undecided": round(found.undecided.value * found.undecided.n),
                "failed": sum(r.status == "failed" for r in rows),
                "auroc_by_state": by_state(rows),
                "threshold": found.residual.threshold,
                "threshold_between": found.residual.between,
                "false_positive": found.false_positive.value,
                "false_negative": found.false_negative.value,
                "samples": dict(found.samples),
            }
        )
    )


if __name__ == "__main__":
    main()
