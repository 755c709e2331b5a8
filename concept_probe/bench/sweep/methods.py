"""Erasers that enter a sweep, and what has to be found or chosen before each can start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from concept_probe.bench.sweep.grid import MethodSetting
from concept_probe.erasers import ERASERS, Eraser, Erasure, choose, choose_features, choose_vectors
from concept_probe.erasers.select.choose import CHOICE
from concept_probe.evaluation.selection import Selection
from concept_probe.find import RowQuery, find_features
from concept_probe.learn import over_text, shipped_saes
from concept_probe.registry import look_up
from concept_probe.types import Concept, Judge, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class FitContext:
    """What a fit may use besides subject and concept."""

    recogniser: Judge
    saes: tuple[SparseCoder, ...] = ()
    """Autoencoders of the subject; empty means the shipped ones."""
    columns: tuple[Subspace, ...] = ()
    """Those that the concept's answers owe most to, where the sweep watches them."""

    def autoencoders(self, subject: Subject) -> tuple[SparseCoder, ...]:
        return self.saes or shipped_saes(subject.name)


FittedFrom = tuple[Erasure | None, Sequence[Subspace]]
"""An erasure, or None where nothing was found to erase; and what it was made from."""
Preparation = Callable[[MethodSetting, "Subject", Concept, FitContext], FittedFrom]


def _asked(method: MethodSetting, context: FitContext) -> dict[str, Any]:
    """What every chooser is told: who looks, and how much is asked."""
    return {"recogniser": context.recogniser, "selection": method.choice or CHOICE}


def _nothing(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    return method.eraser(subject, concept), ()


def _chosen_settings(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    """The best of the method's settings by pictures of the select split."""
    made = {str(i): eraser(subject, concept) for i, eraser in enumerate((method.eraser, *method.others))}
    return choose(made, subject, concept, **_asked(method, context)).erasure, ()


def _features(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    """Each autoencoder with its strongest feature of the concept."""
    found = find_features(list(context.autoencoders(subject)), subject, concept, count=1, which=RowQuery(limit=4))
    return method.eraser(subject, concept, found), found


def _contrast_features(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    """Of each autoencoder the eight features of largest contrast."""
    found = find_features(list(context.autoencoders(subject)), subject, concept, count=8, which=RowQuery(limit=12))
    return method.eraser(subject, concept, found), found


def _effective_columns(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    """The columns that the sweep watches."""
    return method.eraser(subject, concept, context.columns), context.columns


def _chosen_features(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    """Formula, number and strength chosen on the select split; the eraser's own options give way to that choice."""
    saes = over_text(context.autoencoders(subject))  # pyright: ignore[reportArgumentType]
    choice = choose_features(subject, concept, saes, **_asked(method, context))
    return choice.erasure, choice.found


def _chosen_columns(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    """Ranking, number and strength of columns chosen on the select split; None where random columns do as much."""
    choice = choose_vectors(subject, concept, **_asked(method, context))
    return (None, ()) if choice is None else (choice.erasure, choice.found)


def _chosen_cross(method: MethodSetting, subject: Subject, concept: Concept, context: FitContext) -> FittedFrom:
    """The same of directions that cross-attention reads."""
    role = ("cross_key_weight", "cross_value_weight")
    choice = choose_vectors(subject, concept, role=role, **_asked(method, context))
    return (None, ()) if choice is None else (choice.erasure, choice.found)


PREPARATIONS: dict[str, Preparation] = {
    "nothing": _nothing,
    "chosen settings": _chosen_settings,
    "features": _features,
    "contrast features": _contrast_features,
    "effective columns": _effective_columns,
    "chosen features": _chosen_features,
    "chosen columns": _chosen_columns,
    "chosen cross-attention": _chosen_cross,
}
"""By name; a new way to find is one function and one line here."""

_BY_NEED = {
    "features": "features",
    "text_features": "features",
    "patch_features": "features",
    "columns": "effective columns",
    "vectors": "effective columns",
    "directions": "nothing",
}
_BY_NEED_OURS = {"features": "chosen features", "vectors": "chosen columns"}
"""This project's own methods are compared as they are meant to be used: with what they work on chosen too."""


def preparation_of(eraser: type[Eraser]) -> str:
    """What comes before an eraser of the registry, by what it says that it needs; a key of PREPARATIONS."""
    needs = eraser.needs
    if needs.found == "nothing" or needs.optional:
        return "nothing"
    return (_BY_NEED_OURS if eraser.origin == "ours" else _BY_NEED)[needs.found]


def method_settings(names: Sequence[str] = (), choice: Selection | None = None) -> tuple[MethodSetting, ...]:
    """Erasers of the registry with their default options, all of them where none is named.

    `choice` is what is asked where something is chosen, as for this project's own methods; None: `CHOICE`.
    `ablate_vectors` may also be asked for as `ablate_vectors (cross-attention)`, and one whose authors set other options as
    `uce (published)`. Raises UnknownName for a name that nothing has.
    """
    known = {name: _default_setting(name) for name in ERASERS}
    cross = MethodSetting("ablate_vectors (cross-attention)", ERASERS["ablate_vectors"](), "chosen cross-attention")
    known[cross.name] = cross
    every = known | {m.name: m for m in map(_published_setting, ERASERS) if m is not None}
    asked = [look_up(every, name, "eraser", "concept-probe info erasers") for name in names or known]
    return tuple(replace(m, choice=choice) if m.prepare.startswith("chosen") else m for m in asked)


def _default_setting(name: str) -> MethodSetting:
    return MethodSetting(name, ERASERS[name](), preparation_of(ERASERS[name]))


def _published_setting(name: str) -> MethodSetting | None:
    """With its authors' options, where these are known and not the defaults; made as it is, with nothing chosen."""
    kind = ERASERS[name]
    if kind.authors is None or not kind.authors.options:
        return None
    return MethodSetting(f"{name} (published)", kind.published(), preparation_of(kind))
