"""Verdicts as assertions, for tests and pipelines that must stop at a model that still holds a concept."""

from __future__ import annotations

from pathlib import Path

from concept_probe.report import from_json
from concept_probe.report.format import headline, left_out
from concept_probe.storage import read_text
from concept_probe.types import Report


def assert_erased(report: Report | str | Path) -> Report:
    """The report, where its verdict is `erased`; AssertionError with its reasons for any other.

    `report` is what an audit returned, its JSON file, or the folder that `concept-probe audit --output` wrote.

    >>> def test_the_release_forgot_it():
    ...     assert_erased(cp.audit(released, None, concept, original=before))

    MissingFile, WrongFile or CorruptFile for a file that is no report.
    """
    if not isinstance(report, Report):
        path = Path(report)
        path = path / "report.json" if path.is_dir() else path
        report = from_json(read_text(path, "give the report.json that an audit wrote"), path)
    if report.verdict.name != "erased":
        lines = [headline(report), *report.verdict.reasons]
        lines += [f"Not measured: {left_out(report)}."] if report.not_measured else []
        raise AssertionError("\n- ".join(lines))
    return report
