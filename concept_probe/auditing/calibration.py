"""What the thresholds of the verdict were calibrated on, and how often they were wrong there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_probe.auditing.verdict import Thresholds
from concept_probe.storage import SEAL, WrongFile, check_fields, check_seal, read_json
from concept_probe.storage.schema import Fields, Items, Number, Table, Text, Tuple, Whole

if TYPE_CHECKING:
    from concept_probe.families import Subject

CALIBRATION_FILE = Path(__file__).parent / "calibration.json"
"""Of audits that ask once."""
CALIBRATION_IN_ROUNDS_FILE = Path(__file__).parent / "calibration_in_rounds.json"
"""Of audits that ask in rounds, whose intervals are others."""
CALIBRATION_FORMAT = "concept_probe.calibration/1"
_MEND = "calibrate again"
_SHARE = Number(any=True)
_RATE = Fields({"value": _SHARE, "low": _SHARE, "high": _SHARE, "n": Whole()})
_ROC = Fields({
    "auroc": _SHARE,
    "threshold": _SHARE,
    "between": Tuple((_SHARE, _SHARE)),
    "false_positive": _RATE,
    "false_negative": _RATE,
})  # fmt: skip
_CALIBRATION = Fields(
    {
        "format": Text(),
        "subjects": Items(Text()),
        "cases": Whole(),
        "thresholds": Fields({}, {f.name: Number() for f in fields(Thresholds)}),
        "residual": _ROC,
        "evidence": Table(_ROC),
        "false_positive": _RATE,
        "false_negative": _RATE,
        "undecided": _RATE,
        "samples": Table(_SHARE),
        "asked": Text(),
    },
    {SEAL: Text()},
)


@dataclass(frozen=True)
class Rate:
    """A share of cases with its Wilson interval (95 %)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}] of {self.n}"


@dataclass(frozen=True)
class Roc:
    """How well one number tells subjects that hold a concept from subjects that were never taught it."""

    auroc: float
    threshold: float
    """The middle of `between`."""
    between: tuple[float, float]
    """Any threshold in this range makes the fewest mistakes: the widest such gap between two measured values."""
    false_positive: Rate
    """Never taught, and above the threshold."""
    false_negative: Rate
    """Holds the concept, and below the threshold."""


@dataclass(frozen=True)
class Calibration:
    """The outcome of audits of subjects whose truth is known."""

    subjects: tuple[str, ...]
    """Names of the models whose audits these are; for others the rates may differ."""
    cases: int
    thresholds: Thresholds
    """Those that the verdicts were reached with."""
    residual: Roc
    """Of the verdict's residual, the largest index of an audit."""
    evidence: Mapping[str, Roc]
    """The same per kind of evidence, where it was defined for both."""
    false_positive: Rate
    """Verdicts `intact` or `suppressed` on subjects that were never taught the concept."""
    false_negative: Rate
    """Verdicts `erased` on subjects that hold it."""
    undecided: Rate
    """Verdicts `undecided`, of all."""
    samples: Mapping[str, float] = field(default_factory=dict)
    """Answers per kind of prompt that undecided verdicts said they need: `median` and `most`."""
    asked: str = ""
    """What an audit asked: prompts, seeds, budget."""

    def covers(self, base: str, thresholds: Thresholds) -> bool:
        """Whether it says anything about an audit of the model called `base` with these thresholds."""
        return base in self.subjects and thresholds == self.thresholds

    def __str__(self) -> str:
        return (
            f"{self.cases} audits of known truth on {', '.join(self.subjects)}: knowledge claimed where there was none in "
            f"{self.false_positive}, missed where there was some in {self.false_negative}, undecided in {self.undecided}"
        )


def covered(subject: Subject, thresholds: Thresholds, *, rounds: bool = False) -> bool:
    """Whether the stored calibration says anything about audits of this model with these thresholds, in `rounds` or at once.

    That is so of the very weights that it was measured on, drawn in their own size: a name says nothing.
    """
    found = stored_calibration(rounds)
    if found is None or not found.covers(subject.name, thresholds) or "picture_size" in subject.conventions():
        return False
    return subject.weight_hash() == _hash_as_shipped(subject.name)


@cache
def _hash_as_shipped(name: str) -> str:
    from concept_probe.families import load

    return load(name).weight_hash()


def outcome(rounds: bool = False) -> str:
    """The stored calibration in a sentence, for every report."""
    return str(stored_calibration(rounds) or "none is stored")


@cache
def stored_calibration(rounds: bool = False) -> Calibration | None:
    """The calibration that comes with the package, of audits in `rounds` or at once; None where there is none yet."""
    path = CALIBRATION_IN_ROUNDS_FILE if rounds else CALIBRATION_FILE
    return read_calibration(path) if path.is_file() else None


def read_calibration(path: Path) -> Calibration:
    """The calibration in a JSON file. MissingFile; WrongFile for another format, CorruptFile for a damaged one."""
    data = read_json(path, _MEND)
    if data.get("format") != CALIBRATION_FORMAT:
        raise WrongFile(path, f"it has format {data.get('format')!r}, this version reads {CALIBRATION_FORMAT!r}", _MEND)
    check_fields(path, data, _CALIBRATION, _MEND)
    data = check_seal(path, data, _MEND, needed=False)
    return Calibration(
        tuple(data["subjects"]),
        data["cases"],
        Thresholds(**data["thresholds"]),
        _roc(data["residual"]),
        {kind: _roc(roc) for kind, roc in data["evidence"].items()},
        Rate(**data["false_positive"]),
        Rate(**data["false_negative"]),
        Rate(**data["undecided"]),
        data["samples"],
        data["asked"],
    )


def _roc(data: Mapping[str, Any]) -> Roc:
    return Roc(
        data["auroc"],
        data["threshold"],
        tuple(data["between"]),
        Rate(**data["false_positive"]),
        Rate(**data["false_negative"]),
    )
