"""Styles, people and places: of the lists, and people and places of a lexical database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from concept_probe.concepts.kits.entries import FEWEST_NEIGHBOURS, MOST_NEIGHBOURS, Entry, apart, in_hashed_order
from concept_probe.concepts.kits.lexicon import Lexicon, Meaning, NoLexicon
from concept_probe.concepts.kits.names import PEOPLE, PLACES, STYLE_GROUPS, Group
from concept_probe.concepts.kits.templates import KitKind
from concept_probe.concepts.kits.things import choose_sense, siblings
from concept_probe.concepts.kits.wording import Wording, description_of
from concept_probe.registry import nearest

LISTS: dict[KitKind, Mapping[str, Group]] = {"style": STYLE_GROUPS, "person": PEOPLE, "place": PLACES}
PLAIN_WORDINGS: dict[KitKind, Wording] = {
    "style": Wording(None, "as an ordinary photograph", None),
    "person": Wording("person", "a person", None),
    "place": Wording("place", "a place", None),
}
"""What a kit of a kind is led to: nobody, nowhere, and no style."""
_NO_FORENAMES = {"Van", "van", "von", "de", "da", "di", "of", "Queen", "King", "Lady", "Saint"}
_CLASSES: dict[KitKind, frozenset[str]] = {
    "person": frozenset({"person"}),
    "place": frozenset({"location", "object", "artifact"}),
}


def listed_entry(name: str, kind: KitKind, lexicon: Callable[[], Lexicon] | None = None) -> Entry:
    """The entry of a style, person or place by its name; `lexicon` is asked for a person or place of no list.

    LookupError where nothing is known of it.
    """
    groups = LISTS[kind]
    found = group_of(name, kind)
    if found is None:
        return _from_lexicon(name, kind, lexicon)
    usual, group = found
    near = [n for n in groups[group] if n != usual]
    return named_entry(usual, kind, (groups[group][usual],), near)


def group_of(name: str, kind: KitKind) -> tuple[str, str] | None:
    """How a list writes a name, and the group that it stands in; a surname will do where one name has it."""
    rows = [(n, g) for g, names in LISTS[kind].items() for n in names]
    asked = _bare(name)
    exact = [row for row in rows if _bare(row[0]) == asked]
    last = [row for row in rows if _bare(row[0]).endswith(f" {asked}")] if kind != "place" else []
    return exact[0] if exact else last[0] if len(last) == 1 else None


def _bare(name: str) -> str:
    return name.casefold().removeprefix("the ").removesuffix(" style")


def _from_lexicon(name: str, kind: KitKind, lexicon: Callable[[], Lexicon] | None) -> Entry:
    names = [n for group in LISTS[kind].values() for n in group]
    mend = f"Describe it with --describe, and name a {kind} of the list that it is like with --like"
    near = f"nearest: {', '.join(map(repr, nearest(name, names)))}"
    if kind == "style" or lexicon is None:
        raise LookupError(f"{kind} {name!r} is none of the {len(names)} that kits know; {near}. {mend}")
    try:
        opened = lexicon()
    except NoLexicon as error:
        raise NoLexicon(f"{kind} {name!r} is none of the {len(names)} that kits know ({near}); {error}") from None
    chosen = choose_sense(opened, name, _number_of(opened, name, kind), None)
    others = [m.words[0] for m in siblings(opened, chosen.meaning) if m.domain == chosen.meaning.domain]
    found = [n for n in apart(others, (name, *chosen.meaning.words)) if n[:1].isupper()][:MOST_NEIGHBOURS]
    # Of its other names, those of several words hold words that are not its own: the German capital is in Germany.
    names = (name, *(w for w in chosen.meaning.words if " " not in w))
    text = description_of(chosen.meaning.gloss, names, kind, kind)
    if text is None or len(found) < FEWEST_NEIGHBOURS:
        raise LookupError(f"{opened.name} says too little of {kind} {name!r} ({chosen.meaning.gloss}). {mend}")
    return named_entry(
        name, kind, (text,), found, tuple(_full_names(chosen.meaning, name)), (chosen.told(name, opened.name),)
    )


def _number_of(lexicon: Lexicon, name: str, kind: KitKind) -> int | None:
    """The first sense that is a person, or a place, with that very name."""
    for i, meaning in enumerate(lexicon.senses(name), 1):
        if meaning.domain in _CLASSES[kind] and meaning.words[0][:1].isupper():
            return i
    return None


def _full_names(meaning: Meaning, name: str) -> list[str]:
    return [w for w in meaning.words if w.lower() != name.lower()]


def named_entry(
    name: str, kind: KitKind, descriptions: Sequence[str], near: Sequence[str],
    others: Sequence[str] = (), notes: tuple[str, ...] = (),
) -> Entry:  # fmt: skip
    """An entry of a style, person or place: what is near stands in its group, what is unrelated in the other groups."""
    far = [n for group in LISTS[kind].values() if not {*near, name} & {*group} for n in group]
    far = [n for n in apart(far, (name, *near)) if n not in near]
    return Entry(
        name,
        named(name, kind, name),
        tuple(named(word, kind, name) for word in (*others, *_other_forms(name, kind))),
        tuple(Wording(None, _in_place(text, kind), name) for text in descriptions),
        tuple(named(n, kind, n) for n in near[:MOST_NEIGHBOURS]),
        tuple(named(n, kind, n) for n in in_hashed_order(far, name)),
        PLAIN_WORDINGS[kind],
        notes,
    )


def named(words: str, kind: KitKind, label: str | None) -> Wording:
    return Wording(words, f"in the style of {words}" if kind == "style" else words, label)


def _in_place(text: str, kind: KitKind) -> str:
    return f"in the style of {text}" if kind == "style" else text


def _other_forms(name: str, kind: KitKind) -> list[str]:
    """How else a name is said: an artist or a person by the last name, a place without `the`."""
    *first, last = name.split()
    if kind == "style" and not name[:1].isupper():
        return [f"{name} pictures", *([] if last == "art" else [f"{name} art"])]
    surname = [last] if first and not {*first} & _NO_FORENAMES else []
    if kind == "style":
        return [*surname, f"{name}'s work"]
    if kind == "person":
        return [*surname, f"the famous {name}"]
    return [f"the famous {name.removeprefix('the ')}", f"{name.removeprefix('the ')} itself"]
