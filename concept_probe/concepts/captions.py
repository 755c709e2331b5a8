"""Broad captions: everyday things, styles, people and places in many sentences, which an autoencoder can be trained on."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator

from concept_probe.concepts.kits.names import EVERYDAY, PEOPLE, PLACES, STYLE_GROUPS
from concept_probe.concepts.kits.templates import FRAMES, KitKind
from concept_probe.concepts.kits.wording import phrase_of
from concept_probe.types import SPLITS, Concept, Prompt

CAPTIONS = 2000


def broad_captions(count: int = CAPTIONS, without: Collection[str] = ()) -> tuple[Prompt, ...]:
    """At most `count` sentences of the fit split, in an order that their texts decide; none is one of `without`.

    >>> broad_captions(3)[0].text

    Everyday things, styles, people and places of the lists of kits, each in every sentence of its kind.
    """
    rows = {text: words for text, words in _captions() if text not in without}
    ordered = sorted(rows, key=lambda text: zlib.crc32(text.encode()))
    return tuple(Prompt(text, rows[text]) for text in ordered[:count])


def captions_around(concept: Concept, count: int = CAPTIONS) -> tuple[Prompt, ...]:
    """Broad captions and the concept's own fit prompts: what a dictionary is trained on that is to hold the concept.

    No sentence of its select and test prompts is among them.
    """
    kept = {p.text for kind in ("target", "paraphrases", "implicit", "neighbours", "anchor", "unrelated")
            for split in SPLITS if split != "fit" for p in concept.prompts(kind, split)}  # fmt: skip
    own = {p.text: p for kind in ("target", "paraphrases", "implicit", "neighbours", "unrelated")
           for p in concept.prompts(kind, "fit")}  # fmt: skip
    return (*own.values(), *broad_captions(count, kept | own.keys()))


def _captions() -> Iterator[tuple[str, str]]:
    """Sentences with the words in them that name what is shown."""
    for words in EVERYDAY.values():
        for word in words.split():
            yield from ((frame.format(phrase_of(word)), word) for frame in FRAMES["object"]["fit"])
    listed: dict[KitKind, dict[str, dict[str, str]]] = {"style": STYLE_GROUPS, "person": PEOPLE, "place": PLACES}
    for kind, groups in listed.items():
        for name in (n for group in groups.values() for n in group):
            phrase = f"in the style of {name}" if kind == "style" else name
            yield from ((frame.format(phrase), name) for frame in FRAMES[kind]["fit"])
