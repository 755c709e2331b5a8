"""An eraser's fit to one concept, made once and kept: edits as their files, interventions as what remakes them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_probe.bench.sweep.grid import MethodSetting
from concept_probe.bench.sweep.methods import PREPARATIONS, FitContext
from concept_probe.bench.sweep.peak_memory import Peak
from concept_probe.bench.sweep.store import RowStore
from concept_probe.erasers import ERASERS, Edit, Erasure
from concept_probe.find.files import has_features, load_found, save_found
from concept_probe.registry import look_up
from concept_probe.storage import (
    CorruptFile,
    MissingFile,
    WrongFile,
    check_fields,
    check_seal,
    read_json,
    write_sealed_json,
)
from concept_probe.storage.schema import Fields, Free, Maybe, Number, Table, Text, Whole
from concept_probe.types import Concept, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

FIT_FORMAT = "concept_probe.fit/2"
_NOTE = Fields(
    {
        "format": Text(),
        "eraser": Text(),
        "kind": Text(("nothing", "edit", "intervention")),
        "seconds": Number(0.0),
        "peak": Maybe(Number(any=True)),
        "numbers": Whole(),
        "change": Number(any=True),
    },
    {"describe": Fields({"made_by": Table(Free())}, open=True)},
)


@dataclass(frozen=True)
class Fit:
    """An erasure and what it took to make it."""

    erasure: Erasure | None
    """None where nothing was found to erase."""
    seconds: float
    """Wall time of finding, choosing and fitting together."""
    peak: int | None
    """Bytes of memory above what was in use when the fit began; None where the system does not say."""
    numbers: int
    """How many numbers the edit stores; 0 for an intervention, which changes no weight."""
    change: float
    """‖change of the edited weights‖ / ‖edited weights‖, 0 for an intervention."""


@dataclass(frozen=True)
class Fits:
    """The fits of a sweep in a folder, one folder per eraser and concept."""

    folder: Path
    store: RowStore
    """Whose claims keep two processes from fitting the same thing."""

    def get(self, method: MethodSetting, subject: Subject, concept: Concept, bench: FitContext, name: str) -> Fit:
        """The kept fit of the name that `keys.fit_key` gives, or a new one that is then kept.

        What another process is fitting is waited for.
        """
        place = self.folder / f"{_plain(method.name)}-{_plain(concept.name)}-{name}"
        with self.store.claim(f"fit {name}", wait=True):
            kept = _read(place, subject, concept, bench)
            return kept if kept is not None else _make(place, method, subject, concept, bench)


def _make(place: Path, method: MethodSetting, subject: Subject, concept: Concept, bench: FitContext) -> Fit:
    prepare = look_up(PREPARATIONS, method.prepare, "preparation", "the list: bench.PREPARATIONS")
    start, peak = time.perf_counter(), Peak()
    erasure, found = prepare(method, subject, concept, bench)
    seconds, used = time.perf_counter() - start, peak.above()
    fit = Fit(erasure, seconds, used, *_size(erasure, subject))
    (place / "fit.json").unlink(missing_ok=True)  # of an earlier fit, whose files are about to be replaced
    if isinstance(erasure, Edit):
        erasure.save(place / "edit")
    elif erasure is not None:
        save_found(found, place / "found")
    note = asdict_of(fit) | {"format": FIT_FORMAT, "eraser": method.name, "kind": _kind(erasure)}
    if erasure is not None:
        note |= {"describe": erasure.describe()}
    write_sealed_json(place / "fit.json", note, default=str)  # the last file: without it nothing counts as kept
    return fit


def asdict_of(fit: Fit) -> dict[str, Any]:
    """Everything of a fit that JSON can hold."""
    return {"seconds": fit.seconds, "peak": fit.peak, "numbers": fit.numbers, "change": fit.change}


def _read(place: Path, subject: Subject, concept: Concept, bench: FitContext) -> Fit | None:
    """None where nothing is kept, or what is remade from it is not what was kept; a warning where it was damaged."""
    if not (place / "fit.json").is_file():
        return None
    try:
        return _kept(place, subject, concept, bench)
    except (CorruptFile, MissingFile, WrongFile) as problem:
        warnings.warn(f"{problem}; it is fitted anew", stacklevel=2)
        return None


def _kept(place: Path, subject: Subject, concept: Concept, bench: FitContext) -> Fit | None:
    path, mend = place / "fit.json", "the fit is damaged"
    note = read_json(path, mend)
    if note.get("format") != FIT_FORMAT:
        return None
    note = check_seal(path, note, mend)
    check_fields(path, note, _NOTE, mend)
    erasure: Erasure | None = None
    if note["kind"] == "edit":
        erasure = Edit.load(place / "edit")
    elif note["kind"] == "intervention":
        erasure = _again(
            note["describe"], load_found(place / "found", _codecs(place, subject, bench)), subject, concept
        )
        if erasure is None or not _same(erasure.describe(), note["describe"]):
            return None
    return Fit(erasure, note["seconds"], note["peak"], note["numbers"], note["change"])


def _codecs(place: Path, subject: Subject, bench: FitContext) -> tuple:
    """The autoencoders that the found features need; none where nothing found has one."""
    return bench.autoencoders(subject) if has_features(place / "found") else ()


def _again(
    described: Mapping[str, Any], found: tuple[Subspace, ...], subject: Subject, concept: Concept
) -> Erasure | None:
    """The intervention that a description is of: its eraser, with the options that stand there."""
    made = described["made_by"]
    method = ERASERS.get(made.get("method", ""))
    if method is None:
        return None
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in made["options"].items()}
    if any(isinstance(v, dict) for v in options.values()):
        return None  # options with options of their own are those of trained guards, which are fitted again
    return method(**options)(subject, concept, found)


def _size(erasure: Erasure | None, subject: Subject) -> tuple[int, float]:
    """Numbers stored, and relative change of the edited weights."""
    if not isinstance(erasure, Edit):
        return 0, 0.0
    from concept_probe.erasers.erasure.parameters import find_parameter

    numbers = sum(x.numel() for delta in erasure.deltas.values() for x in delta.tensors().values())
    moved = whole = 0.0
    for address, delta in erasure.deltas.items():
        weight = find_parameter(subject.components, address).detach()
        moved += float((delta.apply(weight).double() - weight.double()).square().sum())
        whole += float(weight.double().square().sum())
    return numbers, (moved / whole) ** 0.5 if whole else 0.0


def _kind(erasure: Erasure | None) -> str:
    return "nothing" if erasure is None else "edit" if isinstance(erasure, Edit) else "intervention"


def _same(made: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    """Whether a description is that which was kept; those of before do not say the weights."""
    said = {key: value for key, value in made.items() if key != "base_hash" or key in kept}
    return _text(said) == _text(kept)


def _text(described: Mapping[str, Any]) -> str:
    return json.dumps(described, sort_keys=True, default=str)


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")
