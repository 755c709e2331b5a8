"""From a name to a whole concept."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from concept_probe.concepts.kits.entries import Entry
from concept_probe.concepts.kits.lexicon import Lexicon, installed_lexicon
from concept_probe.concepts.kits.listed import listed_entry
from concept_probe.concepts.kits.own_words import own_entry
from concept_probe.concepts.kits.templates import FRAMES, MOST_SENTENCES, KitKind
from concept_probe.concepts.kits.things import object_entry
from concept_probe.concepts.kits.topics import topic_concept
from concept_probe.concepts.kits.wording import Wording, said_of
from concept_probe.registry import look_up
from concept_probe.types import SPLITS, Concept, Prompt, Split, Splits

KIT_KINDS: tuple[KitKind, ...] = typing.get_args(KitKind)


@dataclass(frozen=True)
class Kit:
    """A whole concept, and what was chosen on the way."""

    concept: Concept
    notes: tuple[str, ...] = ()


def new_kit(
    name: str,
    kind: KitKind = "object",
    *,
    sense: int | None = None,
    describe: Sequence[str] = (),
    like: str | None = None,
    lexicon: Lexicon | None = None,
) -> Kit:
    """A whole concept from its name: every kind of prompt, twelve and more in each of three splits that share none.

    >>> new_kit("Van Gogh", "style").concept.target.test[0].text
    'a lighthouse by the sea in the style of Van Gogh'

    `sense` is the number of a word's sense in the database's order. `describe` says what it is without naming it, in
    place of the database's definition; with `like`, something near that is known, this makes a kit of a name that is
    not. `lexicon` is by default that of the extra `kits`, opened where it is needed. The same arguments give the same
    kit. Neighbours and unrelated things stand in the sentences of the target, once in each.

    Raises NoLexicon, LookupError for a name that nothing is known of, ValueError for a description that names it.
    """
    name = " ".join(name.split())
    look_up(dict.fromkeys(KIT_KINDS), kind, "kind of kit")
    if not name:
        raise ValueError("a kit needs a name, and an empty one was given")

    def opened() -> Lexicon:
        return lexicon if lexicon is not None else installed_lexicon()

    if kind == "topic":
        return Kit(*topic_concept(opened(), name, sense))
    if like is not None or describe:
        entry = own_entry(name, kind, tuple(describe), like, sense, opened)
    elif kind == "object":
        entry = object_entry(opened(), name, sense)
    else:
        entry = listed_entry(name, kind, opened)
    return Kit(concept_of_entry(entry, kind), entry.notes)


def concept_of_entry(entry: Entry, kind: KitKind) -> Concept:
    """An entry in the sentences of its kind."""

    def splits(pick: Callable[[Split], Sequence[Wording]]) -> Splits:
        return Splits(*(_sentences(frames_for(entry, kind, split), pick(split)) for split in SPLITS))

    return Concept(
        entry.name,
        target=splits(lambda _: (entry.own,)),
        paraphrases=splits(lambda s: shared(entry.paraphrases, s)),
        implicit=splits(lambda s: shared(entry.implicit, s)),
        neighbours=splits(lambda _: entry.neighbours),
        anchor=splits(lambda _: (entry.anchor,)),
        unrelated=splits(lambda s: shared(entry.unrelated, s)),
    )


def frames_for(entry: Entry, kind: KitKind, split: Split) -> tuple[str, ...]:
    """The first twelve sentences in which no word of the name stands already."""
    names = [w.words for w in (entry.own, *entry.paraphrases) if w.words]
    return tuple(frame for frame in FRAMES[kind][split] if not said_of(frame, names))[: MOST_SENTENCES[split]]


def shared(wordings: Sequence[Wording], split: Split) -> Sequence[Wording]:
    """Every third of them, another third for each split; all of them, where there are fewer than three."""
    return wordings[SPLITS.index(split) :: len(SPLITS)] if len(wordings) >= len(SPLITS) else wordings


def _sentences(frames: Sequence[str], wordings: Sequence[Wording]) -> tuple[Prompt, ...]:
    """Each frame once, with the wordings in turn."""
    filled = ((frame, wordings[i % len(wordings)]) for i, frame in enumerate(frames))
    return tuple(Prompt(frame.format(w.phrase), w.words, w.label) for frame, w in filled)
