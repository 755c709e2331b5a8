"""Which kind of kit a bare name is: what the lists and the lexical database know it as."""

from __future__ import annotations

from collections.abc import Callable

from concept_probe.concepts.kits.build import Kit, new_kit
from concept_probe.concepts.kits.lexicon import Lexicon, NoLexicon, installed_lexicon
from concept_probe.concepts.kits.listed import LISTS, group_of
from concept_probe.concepts.kits.templates import KitKind
from concept_probe.concepts.kits.things import SHOWN

_PROPER: dict[KitKind, frozenset[str]] = {"person": frozenset({"person"}), "place": frozenset({"location"})}
"""Classes of the database that a name of somebody, or of some place, is in."""

_OPTIONS = "These are options of `concept-probe concept new`, which writes a file for --concept-file"


def kinds_of(name: str, lexicon: Callable[[], Lexicon] = installed_lexicon) -> dict[KitKind, str]:
    """Kinds of kit that pictures of `name` may be meant as, each with what is known of it; empty where nothing is.

    >>> kinds_of("Van Gogh")
    {'style': 'modern painters'}
    >>> sorted(kinds_of("mosaic"))
    ['object', 'style']

    What is in a list is looked up as a common noun beside; where it is in none, also as somebody's or some place's name.
    Without an installed database the lists alone are looked in.
    """
    name = " ".join(name.split())
    found: dict[KitKind, str] = {}
    usual: list[str] = []
    for kind in LISTS:
        listed = group_of(name, kind)
        if listed is not None:
            usual.append(listed[0])
            found[kind] = listed[1]
    try:
        senses = lexicon().senses(name)
    except NoLexicon:
        if found:
            return found
        raise
    common = next((m for m in senses if m.domain in SHOWN and not _is_proper(m.words[0])), None)
    if common is not None and not (found and name != name.lower()):
        found["object"] = common.gloss
    surname = any(listed.casefold() != name.casefold() for listed in usual)
    bare = not usual and (not found or name != name.lower())
    for kind, classes in _PROPER.items():
        # A surname in a list says who is meant, and not that nowhere is called so.
        if kind not in found and (bare or (surname and kind == "place")):
            named = next((m for m in senses if m.domain in classes and _is_proper(m.words[0])), None)
            if named is not None:
                found[kind] = named.gloss
    return found


def _is_proper(word: str) -> bool:
    return word[:1].isupper()


def kit_for(name: str, answers: str, kind: KitKind | None = None, sense: int | None = None) -> Kit:
    """The kit of a bare name for what answers with `pictures` or `texts`.

    Without `kind`, texts are asked about a topic, and pictures show the one kind that the name is known as. ValueError
    where it is known as several, or a kind is asked for that such a model has no answers to; LookupError where as none.
    """
    if answers == "texts":
        return _topic(name, kind, sense)
    if kind == "topic":
        raise ValueError(
            f"--kind topic of {name!r} is questions with answers, and this model draws pictures; give --kind object, style, "
            "person or place"
        )
    known: dict[KitKind, str] = {kind: ""} if kind is not None else kinds_of(name)
    if len(known) > 1:
        told = "; ".join(f"--kind {each} ({said})" for each, said in known.items())
        raise ValueError(f"{name!r} may be meant in several ways; say which: {told}")
    first: KitKind = next(iter(known)) if known else "object"
    try:
        return new_kit(name, first, sense=sense)  # as an object an unknown name is refused with what is near it
    except LookupError as error:
        raise LookupError(f"{error}. {_OPTIONS}") from None


def _topic(name: str, kind: KitKind | None, sense: int | None) -> Kit:
    if kind not in (None, "topic"):
        raise ValueError(
            f"--kind {kind} of {name!r} is sentences to draw, and this model answers with texts; leave --kind out, or give topic"
        )
    try:
        return new_kit(name, "topic", sense=sense)
    except LookupError as error:
        raise LookupError(
            f"{error}. {_OPTIONS}; for anything but a topic, give --concept-file with prompts that have `answers` and `distractors`, at "
            "least 12 facts a split"
        ) from None
