"""Written audits: report, verify; and how one is written and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from concept_probe.cli.command_line import command
from concept_probe.cli.common import plain_errors, writable
from concept_probe.cli.console import out, say

REPORT_FILES = ("report.json", "report.html", "report.md", "observations.json", "observations.safetensors")


def report(
    source: Annotated[Path, typer.Argument(help="A report.json that `audit` or `run` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the renderings; default: beside the JSON.")
    ] = None,
) -> None:
    """Render a report's JSON as HTML and Markdown again.

    Example: `concept-probe report camel-report/report.json`
    """
    with plain_errors():
        from concept_probe.report import from_json
        from concept_probe.storage import read_text

        source = source / "report.json" if source.is_dir() else source
        if not source.is_file():
            raise FileNotFoundError(f"report {source} not found; give the report.json that audit or run wrote")
        writable(output, files=REPORT_FILES)
        found = from_json(read_text(source, "give the report.json that audit or run wrote"), source)
        place = output or source.parent
        write_report(found, place)
        print_verdict(found, place)


def verify(
    folder: Annotated[Path, typer.Argument(help="A folder that `audit --output` or `run` wrote.")],
) -> None:
    """Make every number of a written audit again from its observations, and check every file.

    Ends with status 1 where something does not hold.

    Example: `concept-probe verify camel-audit`
    """
    with plain_errors():
        from concept_probe.types.plain_text import shown_plainly
        from concept_probe.verification import verify as verify_folder

        checks = verify_folder(folder)
        for outcome, style in (("not checked", "yellow"), ("fails", "bold red")):
            for check in checks:
                if check.outcome == outcome:
                    said = shown_plainly(f"{check.what}: {check.said}", keep="")
                    say(outcome, style, said)
        held, failed = (sum(c.outcome == outcome for c in checks) for outcome in ("holds", "fails"))
        out.print(f"{held} of {held + failed} checks hold")
        if failed:
            raise typer.Exit(1)


def signed(report):
    """The report of an audit that this command ran, with the command that runs it again."""
    return replace(report, provenance={**report.provenance, "command": command()})


def write_report(report, folder: Path) -> None:
    """report.json (the source), report.html and report.md; and of an audit that was just made, what they follow from."""
    from concept_probe.report import to_html, to_json, to_markdown
    from concept_probe.storage import write_text
    from concept_probe.verification.bundle import write_bundle

    if report.observed is not None:
        write_bundle(report, folder)
        return

    for name, text in zip(REPORT_FILES[:3], (to_json(report), to_html(report), to_markdown(report)), strict=True):
        write_text(folder / name, text)


def print_verdict(report, folder: Path | None) -> None:
    """The verdict, its reasons and the indices, in the terminal."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    from concept_probe.report.format import EVIDENCE_NAMES, VERDICTS, left_out, rounds, samples, score
    from concept_probe.types.plain_text import shown_plainly

    colours = {"erased": "green", "suppressed": "yellow", "undecided": "white", "intact": "red", "damaged": "red"}
    verdict = report.verdict
    reasons = Table.grid(padding=(0, 1))
    for reason in verdict.reasons:
        reasons.add_row("·", reason)
    if verdict.samples_needed is not None:
        reasons.add_row("·", f"answers needed for a decision: {samples(verdict.samples_needed)}")
    if missing := left_out(report):
        reasons.add_row("·", Text(shown_plainly(f"not measured: {missing}", keep="")))
    head = Text.assemble((verdict.name, f"bold {colours[verdict.name]}"), f"  {VERDICTS[verdict.name]}")
    parts = [head, "", reasons]
    if told := rounds(report):
        went = Table.grid(padding=(0, 1))
        for name, said in told:
            went.add_row(name, Text(shown_plainly(said, keep="")))
        parts += ["", went]
    if folder is not None:
        parts += ["", f"report: {folder / 'report.html'}"]
    title = Text(shown_plainly(f"{report.concept} in {report.subject}, {report.erasure}", keep=""))
    mark = "calibrated" if verdict.calibrated else "thresholds uncalibrated"
    out.print(Panel(Group(*parts), title=title, subtitle=mark, title_align="left", subtitle_align="right"))
    table = Table("evidence", "index (0 never taught, 1 untouched)", "n", box=None)
    for name, value in report.indices.items():
        table.add_row(EVIDENCE_NAMES[name][0], score(value), str(value.n))
    if report.indices:
        out.print(table)
