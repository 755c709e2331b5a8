"""How cells and fits are named: by everything that decides their numbers, so that none is taken for another.

A name holds what things are and never what they are called: weights, tokenizers and schedulers of the subjects, every
field of every prompt in its split, example pictures, the recogniser's own weights, the autoencoders that an eraser
works with, all options, and the edition of the measurement. Correct a label, and its cells are measured again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from concept_probe.attacks import ATTACKS
from concept_probe.bench.sweep.grid import CONTROLS, AttackSetting, Cell, Grid, MethodSetting, SweepSettings
from concept_probe.content import content_of, digest_of, is_left_out
from concept_probe.erasers import ERASERS
from concept_probe.registry import Registry
from concept_probe.storage import text_sha256
from concept_probe.types import KINDS, SPLITS, Concept, fingerprint

EDITIONS = {"answers": 1, "attack": 1, "fit": 1, "columns": 1, "audit": 1}
"""How each measurement is done, as a number that is raised by hand whenever its code comes to give other numbers: of
cells without an attack, of attacks, of fits, of watched columns, and of the audits of a calibration. EraseEval's measures have a
name of their own since they were defined anew (`erase_eval`): rows of before keep their other numbers, and lack these."""


@dataclass(frozen=True)
class SweepIdentity:
    """Who is measured, by whom and with what: the part of a name that a grid does not hold."""

    weights: str
    """The weights' hash of the subject, and that of the twin where there is one."""
    reads: tuple[str, ...]
    """`how_it_reads` of the subject, and of the twin."""
    judges: Mapping[str, str]
    """By concept, the digest of who judges it: recogniser, recogniser of the other domain, CLIP pair."""
    concepts: Mapping[str, str]
    """By concept, the digest of every field of every prompt in its split, and of its example pictures."""
    dictionaries: str = ""
    """Digest of the autoencoders that erasers may work with."""


def cell_key(grid: Grid, cell: Cell, of: SweepIdentity) -> str:
    """Names what a cell measures; 20 hexadecimal digits."""
    control, settings = cell.method in CONTROLS, grid.settings
    method = None if control else grid.method(cell.method)
    first = short_digest(
        of.weights,
        cell.method if method is None else first_of_method(method),
        first_of_concept(cell.concept),
        None if cell.attack is None else _first(cell.attack, ("name", "attack", "options")),
        cell.seed,
        _first(settings, ("sampling", "counts", "budget")),
    )
    return with_rest(first, rest_of(cell, method, settings, of))


def rest_of(cell: Cell, method: MethodSetting | None, settings: SweepSettings, of: SweepIdentity) -> str:
    """What names a cell besides the part that names had from the first; no weights are needed."""
    kinds = ["answers" if cell.attack is None else "attack", *(["fit"] if method else [])]
    kinds += ["columns"] if settings.columns else []
    return digest_of(
        {kind: EDITIONS[kind] for kind in kinds},
        of.reads,
        of.judges[cell.concept.name],
        of.concepts[cell.concept.name],
        None if method is None else method_content(method),
        of.dictionaries if method is not None and method.works_with_features else "",
        None if cell.attack is None else [cell.attack, _package(ATTACKS, cell.attack.attack)],
        settings,
    )


def with_rest(first: str, rest: str) -> str:
    """A name of its two parts."""
    return short_digest("row/2", first, rest)


def fit_key(method: MethodSetting, concept: Concept, of: SweepIdentity, settings: SweepSettings) -> str:
    """Names what an eraser was fitted to: another recogniser may choose other settings, so it counts too."""
    return digest_of(
        EDITIONS["fit"], of.weights[:64], of.reads[:1], of.judges[concept.name], of.concepts[concept.name], method_content(method),
        of.dictionaries if method.works_with_features else "", settings.columns,
    )[:20]  # fmt: skip


def columns_key(concept: Concept, of: SweepIdentity, count: int) -> str:
    """Names the columns of the subject that are watched for a concept."""
    return digest_of(EDITIONS["columns"], of.weights[:64], of.reads[:1], of.concepts[concept.name], count)[:20]


def method_content(method: MethodSetting) -> Any:
    """What makes a method's erasure what it is: erasers with all their options, and the packages that they are from."""
    erasers = (method.eraser, *method.others)
    chosen = [] if method.choice is None else [content_of(method.choice)]
    return [content_of(erasers), [_package(ERASERS, e.name) for e in erasers], method.prepare, *chosen]


def first_of_method(method: MethodSetting) -> list[Any]:
    """The first part of a name: the eraser's name and options."""
    return [method.eraser.name, [_named(e) for e in (method.eraser, *method.others)], method.prepare]


def first_of_concept(concept: Concept) -> list[str]:
    """The first part of a name: a concept's name and every sentence."""
    return [concept.name, *(fingerprint(p.text) for k in KINDS for s in SPLITS for p in concept.prompts(k, s))]


def short_digest(*parts: Any) -> str:
    return text_sha256(json.dumps(parts, sort_keys=True, default=str))[:20]


def _first(value: AttackSetting | SweepSettings, always: tuple[str, ...]) -> dict[str, Any]:
    """The fields that are `always` in a name, and others where they are not at their default."""
    chosen = {f.name for f in fields(value) if f.name in always or getattr(value, f.name) != f.default}
    return {name: _named(getattr(value, name)) for name in chosen}


def _named(value: Any) -> Any:
    """A value as JSON, dataclasses by the fields that their names have had from the first; of later ones, those that
    are at a default which says nothing are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        known = _from_the_first().get(type(value).__name__, ())
        held = [(f, getattr(value, f.name)) for f in fields(value)]
        return {f.name: _named(x) for f, x in held if f.name in known or not is_left_out(f, x)}
    if isinstance(value, (list, tuple)):
        return [_named(x) for x in value]
    return {k: _named(x) for k, x in value.items()} if isinstance(value, Mapping) else value


@functools.cache
def _from_the_first() -> Mapping[str, Sequence[str]]:
    return json.loads((Path(__file__).parent / "named_fields.json").read_text(encoding="utf-8"))


def _package(registry: Registry[Any], name: str) -> str:
    """The package, with its version, that a method of another package is from: its code is not ours to number."""
    return registry.package(name) if name in registry.added else ""
