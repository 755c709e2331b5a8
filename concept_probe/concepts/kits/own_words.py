"""A thing that no list and no database knows, in the words of whoever asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from concept_probe.concepts.kits.entries import MOST_NEIGHBOURS, Entry
from concept_probe.concepts.kits.lexicon import Lexicon
from concept_probe.concepts.kits.listed import group_of, listed_entry, named_entry
from concept_probe.concepts.kits.templates import KitKind
from concept_probe.concepts.kits.things import object_entry, paraphrases_of, thing
from concept_probe.concepts.kits.wording import Wording, said_of


def own_entry(
    name: str, kind: KitKind, descriptions: tuple[str, ...], like: str | None, sense: int | None,
    lexicon: Callable[[], Lexicon],
) -> Entry:  # fmt: skip
    """The entry of `name` with these descriptions; where `like` is given, what lies around is what lies around that.

    ValueError for a description with a word of the name in it, and for `like` without a description.
    """
    for text in descriptions:
        shown = said_of(text, [name])
        if shown:
            raise ValueError(
                f"--describe {text!r} says {', '.join(map(repr, shown))} of the name {name!r}, and an implicit description must "
                "not; say it in other words"
            )
    if like is None:
        entry = object_entry(lexicon(), name, sense) if kind == "object" else listed_entry(name, kind, lexicon)
        return _described(entry, descriptions, kind)
    if not descriptions:
        raise ValueError(
            f"--like {like!r} says what {name!r} is near to, and not what it is; add --describe, without its name"
        )
    if kind == "object":
        near = object_entry(lexicon(), like, sense)
        plain = replace(
            near,
            name=name,
            own=thing(name, name, ""),
            paraphrases=paraphrases_of(name, (), ""),
            neighbours=(thing(like, like, ""), *near.neighbours)[:MOST_NEIGHBOURS],
        )
        return _described(plain, descriptions, kind)
    near = listed_entry(like, kind, lexicon)
    found = group_of(like, kind)
    others = (found[0] if found else like, *(w.words for w in near.neighbours if w.words))
    return named_entry(name, kind, descriptions, others)


def _described(entry: Entry, descriptions: tuple[str, ...], kind: KitKind) -> Entry:
    before = "in the style of " if kind == "style" else ""
    return replace(entry, implicit=tuple(Wording(None, before + text, entry.name) for text in descriptions))
