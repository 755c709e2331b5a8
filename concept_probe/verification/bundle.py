"""An audit as a folder that anybody can check: its report, and the observations that every number of it follows from.

`report.json` with its two renderings, `observations.safetensors` with hits, readings and values, and `observations.json`,
which says what was asked and seen, what each finding was made of, and the hash of every other file. It is written last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from torch import Tensor

from concept_probe.auditing.verdict import Thresholds
from concept_probe.report import from_json, to_html, to_json, to_markdown
from concept_probe.storage import (
    SEAL,
    CorruptFile,
    WrongFile,
    check_fields,
    check_seal,
    file_sha256,
    json_text,
    read_json,
    read_tensors,
    read_text,
    write_sealed,
    write_sealed_json,
    write_text,
)
from concept_probe.storage.schema import Fields, Flag, Free, Items, Maybe, Number, Table, Text, Whole
from concept_probe.types import AskedAnswer, FindingSources, Observed, Report
from concept_probe.verification.observations import read_sources, told_sources
from concept_probe.verification.rounds import ROUNDS, read_rounds, told_rounds

BUNDLE_FORMAT = "concept_probe.audit/1"
OBSERVATIONS, TENSORS = "observations.json", "observations.safetensors"
RENDERED = {"report.html": to_html, "report.md": to_markdown}
_MEND = "give the folder that audit wrote"
_BUNDLE = Fields(
    {
        "format": Text(),
        "files": Table(Text()),
        "resamples": Whole(100),
        "seed": Whole(),
        "thresholds": Fields({}, {f.name: Number() for f in fields(Thresholds)}),
        "guarded": Flag(),
        "label": Text(),
        "asked": Items(Items(Free())),
        "findings": Items(Maybe(Free())),
    },
    {SEAL: Text(), "rounds": ROUNDS},
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a folder holds."""

    report: Report
    observed: Observed
    sources: tuple[FindingSources | None, ...]
    """One per finding of the report."""
    files: Mapping[str, str]
    """Name to the hash that was written."""


def write_bundle(report: Report, folder: Path) -> None:
    """The report as JSON, HTML and Markdown, and what it follows from. ValueError for a report without observations: one
    that was read from a file."""
    observed = report.observed
    if observed is None:
        raise ValueError("this report was read from a file and has no observations with it; audit again to write them")
    texts = {"report.json": to_json(report), **{name: render(report) for name, render in RENDERED.items()}}
    for name, text in texts.items():
        write_text(folder / name, text)
    tensors: dict[str, Tensor] = {}
    findings = [None if f.sources is None else told_sources(f.sources, tensors) for f in report.findings]
    rounds = {"rounds": told_rounds(observed, tensors)} if observed.rounds else {}
    write_sealed(folder / TENSORS, tensors, {"format": BUNDLE_FORMAT})
    rules = {name: getattr(observed, name) for name in ("resamples", "seed", "guarded", "label")}
    write_sealed_json(
        folder / OBSERVATIONS,
        {
            "format": BUNDLE_FORMAT,
            "files": {name: file_sha256(folder / name) for name in (*texts, TENSORS)},
            **rules,
            "thresholds": dict(observed.thresholds),
            "asked": [list(astuple(one)) for one in observed.asked],
            "findings": findings,
            **rounds,
        },
    )


def read_bundle(folder: Path) -> Bundle:
    """What `write_bundle` wrote. MissingFile, WrongFile or CorruptFile, naming the file and what is wrong with it; the
    hashes of the files are given, not checked."""
    path = folder / OBSERVATIONS
    data = read_json(path, _MEND)
    if data.get("format") != BUNDLE_FORMAT:
        raise WrongFile(path, f"it has format {data.get('format')!r}, this version reads {BUNDLE_FORMAT!r}", _MEND)
    if json_text(data) != read_text(path, _MEND):
        raise CorruptFile(path, "altered: it is not spelled as it was written", _MEND)
    data = check_seal(path, data, _MEND)
    check_fields(path, data, _BUNDLE, _MEND)
    tensors, _ = read_tensors(folder / TENSORS, _MEND, sealed=True)
    report = from_json(read_text(folder / "report.json", _MEND), folder / "report.json")
    try:
        asked = tuple(AskedAnswer(*row) for row in data["asked"])
        sources = tuple(None if told is None else read_sources(told, tensors) for told in data["findings"])
        rounds = read_rounds(data["rounds"], tensors) if "rounds" in data else {}
    except (TypeError, KeyError, AttributeError) as error:
        raise CorruptFile(path, f"what was asked or found is not as it is written ({error})", _MEND) from None
    if len(sources) != len(report.findings):
        raise CorruptFile(path, f"{len(sources)} sources for {len(report.findings)} findings", _MEND)
    observed = Observed(asked, data["resamples"], data["seed"], data["thresholds"], data["guarded"], data["label"])
    observed = replace(observed, **rounds)
    return Bundle(report, observed, sources, data["files"])


def changed_files(bundle: Bundle, folder: Path) -> Iterator[str]:
    """Names of files whose bytes are not those that were written, or that are gone."""
    for name, was in bundle.files.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != was:
            yield name
