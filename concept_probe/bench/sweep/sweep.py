"""Run a sweep: every cell that has no row yet, one after the other, each claimed before it is measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_probe import detect
from concept_probe.attacks import label_of
from concept_probe.bench.quality.criteria import stands_in
from concept_probe.bench.sweep.applies import why_not
from concept_probe.bench.sweep.asking import queries
from concept_probe.bench.sweep.attack_cell import attack_suits, measure_attack
from concept_probe.bench.sweep.cell import (
    OTHER_NOISE,
    JudgedAnswers,
    ask_and_judge,
    compare_answers,
    refuse_never_shown,
    unreadable,
)
from concept_probe.bench.sweep.fits import Fit, Fits, asdict_of
from concept_probe.bench.sweep.grid import CONTROLS, UNTOUCHED, Cell, Grid
from concept_probe.bench.sweep.judging import Recognisers, recognisers_of
from concept_probe.bench.sweep.keys import SweepIdentity, cell_key, columns_key, fit_key
from concept_probe.bench.sweep.methods import FitContext
from concept_probe.bench.sweep.peak_memory import Peak
from concept_probe.bench.sweep.store import RowStore, SweepRow, row_as_line
from concept_probe.bench.sweep.watched import WatchedColumns, mean_cosine
from concept_probe.content import digest_of
from concept_probe.families.identity import how_it_reads
from concept_probe.learn import shipped_saes
from concept_probe.registry import UnknownName
from concept_probe.types import Concept, Judge, Kind, Query, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.detect.clip import TextImage
    from concept_probe.families import Subject

QueriesByKind = dict[Kind, tuple[Query, ...]]


@dataclass(eq=False)
class Sweep:
    """A grid over one subject, with its rows and fits in a folder.

    >>> sweep = Sweep(grid, load("emoji"), Path("runs/emoji"), twin=load("emoji-untaught"))
    >>> for row in sweep.run():
    ...     print(row.eraser, row.attack, row.status)
    """

    grid: Grid
    subject: Subject
    folder: Path
    """Fits are kept in `FOLDER/fits`."""
    store: RowStore
    twin: Subject | None = None
    judges: Recognisers | None = None
    """None: `recogniser` for every concept, else who belongs to the subject."""
    pairs: Callable[[Judge], TextImage | None] = detect.pair_of
    """A judge to the CLIP pair for the same pictures, if there is one."""
    copy: Subject | None = None
    """The subject loaded again, for attackers who hold a copy of it while an edit is on."""
    recogniser: Judge | str | None = None
    """Who judges, where that is one for all concepts; a name is looked up as `detect.recogniser` does."""
    saes: Sequence[SparseCoder] = ()
    """Autoencoders of the subject, for erasers that work with features; empty: those that are shipped for it, if any."""
    _identity: SweepIdentity | None = None
    _keys: dict[str, Cell] = field(default_factory=dict)
    _watched: dict[str, tuple[Subspace, ...]] = field(default_factory=dict)
    _before: dict[tuple[str, int], tuple[JudgedAnswers, JudgedAnswers]] = field(default_factory=dict)
    _fitted: dict[tuple[str, str], Fit] = field(default_factory=dict)
    _unfit: dict[tuple[str, str], Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.grid.twin != (self.twin is not None):
            raise ValueError("the grid and the sweep disagree on whether there is a never-taught twin")
        if not self.saes and any(m.works_with_features for m in self.grid.methods):
            with contextlib.suppress(UnknownName):  # none is shipped: their cells do not apply
                self.saes = shipped_saes(self.subject.name)

    @property
    def looks(self) -> Recognisers:
        """Who judges the answers to a concept. Raises LookupError or ValueError where nobody can."""
        if self.judges is None:
            self.judges = recognisers_of(self.subject, self.recogniser)
        return self.judges

    @property
    def identity(self) -> SweepIdentity:
        """What names rows and fits besides the grid: taken once, before anything is measured."""
        if self._identity is None:
            both = [s for s in (self.subject, self.twin) if s is not None]
            judges = {}
            for concept in self.grid.concepts:
                looks, across = self.looks(concept)
                judges[concept.name] = digest_of(looks, across, self.pairs(looks))
            concepts = {c.name: digest_of(c) for c in self.grid.concepts}
            dictionaries = digest_of(*self.saes) if self.saes else ""
            weights = "".join(s.weight_hash() for s in both)
            self._identity = SweepIdentity(weights, tuple(map(how_it_reads, both)), judges, concepts, dictionaries)
        return self._identity

    def keys(self) -> dict[str, Cell]:
        """Every cell by the key of its row, in the order in which they are measured.

        Attacks on subjects that answer otherwise (with texts, where this one makes pictures) have none.
        """
        if self._keys:
            return dict(self._keys)
        able = [c for c in self.grid.cells() if c.attack is None or attack_suits(c.attack, self.subject)]
        self._keys = {cell_key(self.grid, cell, self.identity): cell for cell in able}
        return dict(self._keys)

    def run(self, *, retry: bool = False) -> Iterator[SweepRow]:
        """Measure what has no row yet, and yield each row once it is on disk.

        Cells that other processes have claimed are left to them. With `retry`, failed cells are measured again; else
        they count as finished. A cell that can't apply (an eraser without the autoencoder that it needs, say) is a row
        that says why, and no failure. A cell that raises becomes a row with its error; an interruption ends the sweep, and
        the cell that it hit has no row.
        """
        finished = self.store.rows()
        for key, cell in self.keys().items():
            if key in finished and not (retry and finished[key].status == "failed"):
                continue
            with self.store.claim(key) as mine:
                if not mine:
                    continue
                now = self.store.rows().get(key)  # another process may have been quicker
                if now is not None and now != finished.get(key):
                    continue
                row = self.measured(key, cell)
                self.store.append(row)
            yield row

    def measured(self, key: str, cell: Cell) -> SweepRow:
        """The row of one cell, whatever the store holds of it; nothing is written.

        An error becomes a failed row, and so does a value that a row can't hold.
        """
        start = time.perf_counter()
        names = (key, cell.method, cell.concept.name, cell.attack_name, cell.seed)
        if reason := why_not(cell, self.grid, self.subject, self.saes):
            return SweepRow(*names, "does not apply", {}, reason)
        try:
            values = self._measure(cell)
            row = SweepRow(*names, "done", values, "", time.perf_counter() - start - values.pop("waited", 0.0))
            row_as_line(row)
        except Exception as error:  # any cell may fail in its own way, and none may stop the others
            said = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()
            return SweepRow(*names, "failed", {}, said, time.perf_counter() - start)
        return row

    def _measure(self, cell: Cell) -> dict[str, Any]:
        looks, across = self.looks(cell.concept)
        began = time.perf_counter()
        watched = self._columns(cell.concept)
        subject, fit = self._side(cell, looks)
        before = None if cell.attack is not None else self._untouched(cell, looks, across)
        waited = time.perf_counter() - began  # fits, and what the untouched subject draws, are no cost of this cell
        peak = Peak()
        with contextlib.nullcontext() if fit.erasure is None else fit.erasure.on(subject):
            if cell.attack is not None:
                values = measure_attack(
                    subject, cell.concept, cell.attack, self.grid.settings, looks, cell.seed, self.copy
                )
            else:
                assert before is not None  # for the type checker: made above for cells without an attack
                asked = queries(cell.concept, self.grid.settings, cell.seed)
                refuse_never_shown(before[0], cell.concept, looks, self.subject.name)
                after = ask_and_judge(subject, asked, self.grid.settings, looks, across, label_of(cell.concept))
                instead = None if fit.erasure is None else stands_in(fit.erasure.made_by, cell.concept)
                values = compare_answers(before[0], after, before[1], looks, cell.concept, self.pairs(looks), instead)
                values |= {"fit": asdict_of(fit), "found": fit.erasure is not None, "errors": unreadable(after)}
                if watched:
                    values["cosine"] = mean_cosine(subject, watched)  # pyright: ignore[reportArgumentType]
        return values | {"peak": peak.above(), "waited": waited}

    def _side(self, cell: Cell, looks: Judge) -> tuple[Subject, Fit]:
        """Who is measured, and with what on."""
        if cell.method in CONTROLS:
            subject = self.subject if cell.method == UNTOUCHED else self.twin
            assert subject is not None  # the grid has the row only with a twin
            return subject, Fit(None, 0.0, None, 0, 0.0)
        place = (cell.method, cell.concept.name)
        if place in self._unfit:
            raise self._unfit[place]
        if place not in self._fitted:
            fits = Fits(self.folder / "fits", self.store)
            try:
                method = self.grid.method(cell.method)
                context = FitContext(looks, tuple(self.saes), self._columns(cell.concept))
                name = fit_key(method, cell.concept, self.identity, self.grid.settings)
                fit = fits.get(method, self.subject, cell.concept, context, name)
            except Exception as error:  # kept, so that no other cell of this eraser fits in vain
                self._unfit[place] = error
                raise
            self._fitted = {**dict(list(self._fitted.items())[-FITS_IN_MEMORY:]), place: fit}
        return self.subject, self._fitted[place]

    def _untouched(self, cell: Cell, looks: Judge, across: Judge | None) -> tuple[JudgedAnswers, JudgedAnswers]:
        """What the subject without any erasure does in this cell, and what it does on other noise."""
        place = (cell.concept.name, cell.seed)
        if place not in self._before:
            asked = queries(cell.concept, self.grid.settings, cell.seed)
            other: QueriesByKind = {
                k: tuple(Query(q.prompt, q.seed + OTHER_NOISE) for q in part) for k, part in asked.items()
            }
            label = label_of(cell.concept)
            both = (asked, other) if self.subject.answers == "pictures" else (asked,)  # other noise, other pictures
            seen = [ask_and_judge(self.subject, a, self.grid.settings, looks, across, label) for a in both]
            self._before = {place: (seen[0], seen[-1])}  # the last one: cells of one concept and seed come together
        return self._before[place]

    def _columns(self, concept: Concept) -> tuple[Subspace, ...]:
        """The columns that are watched, ranked in the subject while nothing is on; none where none is asked for."""
        if not self.grid.settings.columns:
            return ()
        if concept.name not in self._watched:
            watched = WatchedColumns(self.folder / "fits", self.store, self.grid.settings.columns)
            key = columns_key(concept, self.identity, self.grid.settings.columns)
            columns = watched.get(self.subject, concept, key)  # pyright: ignore[reportArgumentType]
            self._watched = {concept.name: columns}
        return self._watched[concept.name]


FITS_IN_MEMORY = 8
"""How many fits a process holds in memory beside the one in use."""
