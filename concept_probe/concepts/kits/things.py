"""An object or animal as a lexical database knows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from concept_probe.concepts.kits.entries import (
    FEWEST_NEIGHBOURS,
    MOST_NEIGHBOURS,
    Entry,
    apart,
    in_hashed_order,
)
from concept_probe.concepts.kits.lexicon import Lexicon, Meaning
from concept_probe.concepts.kits.names import EVERYDAY, GENERIC
from concept_probe.concepts.kits.wording import Wording, content_words, description_of, phrase_of, plural
from concept_probe.registry import nearest

SHOWN = frozenset({
    "animal", "artifact", "body", "food", "object", "person", "phenomenon", "plant", "process", "substance", "tops",
})  # fmt: skip
"""Classes of what a picture can show."""
_ABSTRACT = frozenset(
    ["attribute", "cognition", "feeling", "motive", "possession", "quantity", "relation", "state", "time"]
)
"""Classes of what nobody has seen."""
_VAGUE = frozenset({
    "abstraction", "animal", "animate thing", "artefact", "artifact", "being", "causal agent", "causal agency",
    "cause", "chordate", "commodity", "container", "conveyance", "craniate", "device", "domestic animal", "entity", "equipment",
    "fauna", "implement", "instrument", "instrumentality", "invertebrate", "living thing", "matter",
    "natural object", "object", "organism", "person", "physical entity", "physical object", "placental", "part",
    "plant", "structure", "substance", "thing", "transport", "unit", "vertebrate", "whole", "construction",
    "covering", "material", "creation", "process", "natural process", "phenomenon", "group", "location", "region",
    "relation",
})  # fmt: skip
"""Kinds so wide that they tell a model nothing to draw."""
_RUDE = frozenset({
    "ass", "bastard", "bitch", "cock", "cunt", "dick", "fag", "homo", "pussy", "slut", "tit", "whore", "whorehouse",
})  # fmt: skip


@dataclass(frozen=True)
class ChosenSense:
    """The sense of a word that a kit is about."""

    meaning: Meaning
    number: int
    """From 1, in the database's order."""
    of: tuple[Meaning, ...]

    def told(self, word: str, lexicon: str) -> str:
        """In one sentence, with the other senses where there are any."""
        others = [f"{i}: {m.gloss}" for i, m in enumerate(self.of, 1) if i != self.number]
        more = f"; others, to choose with --sense: {' | '.join(others)}" if others else ""
        return f"{word!r} is taken in sense {self.number} of {lexicon}: {self.meaning.gloss}{more}"


def choose_sense(lexicon: Lexicon, word: str, number: int | None, domains: frozenset[str] | None) -> ChosenSense:
    """Sense `number` of a word; by default the first of `domains` that is no name of somebody or some place, and whose
    definition says more than the word.

    Raises LookupError for a word that the database lacks, and for a number or class of which it has no sense.
    """
    senses = lexicon.senses(word)
    if not senses:
        # Spelling is compared with those of its initial and length: of a hundred thousand it takes long.
        alike = [w for w in lexicon.words() if w[:1] == word[:1].lower() and abs(len(w) - len(word)) <= 1]
        near = nearest(word.lower(), alike)
        spelled = f"nearest: {', '.join(map(repr, near))}. Spell it so, or say" if near else "say"
        raise LookupError(
            f"{word!r} is no noun of {lexicon.name}; {spelled} what it is with --describe and what it is like with --like"
        )
    if number is not None:
        if not 1 <= number <= len(senses):
            raise LookupError(f"sense {number} of {word!r} was asked for; {lexicon.name} has {_listed(senses)}")
        return ChosenSense(senses[number - 1], number, senses)
    fitting = [i for i, m in enumerate(senses, 1) if domains is None or m.domain in domains]
    if not fitting and len(senses) == 1 and senses[0].domain not in _ABSTRACT:
        fitting = [1]
    # A name of somebody is what is asked for only where it is written as one; a definition that says the word alone is none.
    alike = [
        i for i in fitting if word != word.lower() or senses[i - 1].domain == "animal" or word in senses[i - 1].words
    ]
    telling = [i for i in alike if domains is None or description_of(senses[i - 1].gloss, (word,), "thing") is not None]
    for i in (*telling, *alike, *(fitting if len(senses) == 1 else ())):
        return ChosenSense(senses[i - 1], i, senses)
    raise LookupError(
        f"no sense of {word!r} is a thing that a picture shows; {lexicon.name} has {_listed(senses)}. Choose one with "
        "--sense, or take --kind topic"
    )


def _listed(senses: Sequence[Meaning]) -> str:
    return " | ".join(f"{i}: {m.gloss}" for i, m in enumerate(senses, 1))


def object_entry(lexicon: Lexicon, name: str, sense: int | None = None) -> Entry:
    """The entry of an object by its name. LookupError where the database has too little of it."""
    chosen = choose_sense(lexicon, name, sense, SHOWN)
    meaning = chosen.meaning
    words = other_words(lexicon, meaning, name)
    kinds = tuple(w for m in above_all(lexicon, meaning) for w in m.words if " " not in w)
    near = [
        (n, m) for n, m in known_names(lexicon, siblings(lexicon, meaning), (name, *words)) if n not in kinds
    ][:MOST_NEIGHBOURS]  # fmt: skip
    if len(near) < FEWEST_NEIGHBOURS:
        raise LookupError(
            f"{lexicon.name} has {len(near)} things beside {name!r} in that sense, and a kit needs {FEWEST_NEIGHBOURS}; choose "
            "another sense with --sense, or say what it is like with --like"
        )
    text = description_of(meaning.gloss, (name, *words), GENERIC.get(meaning.domain, "thing"))
    if text is None:
        raise LookupError(
            f"what {lexicon.name} says of {name!r} is its name again ({meaning.gloss}); describe it with --describe"
        )
    return Entry(
        name,
        thing(name, name, meaning.domain),
        paraphrases_of(name, words, meaning.domain),
        (Wording(None, text, name),),
        tuple(thing(n, n, m.domain) for n, m in near),
        far_things(name, meaning.domain, (*words, *(n for n, _ in near))),
        replace_label(anchor_of(lexicon, meaning, name, near)),
        (chosen.told(name, lexicon.name),),
    )


def thing(words: str, label: str | None, domain: str) -> Wording:
    return Wording(words, phrase_of(words, domain), label)


def replace_label(wording: Wording) -> Wording:
    """An anchor: its sentences show nothing that a recogniser is asked for."""
    return Wording(wording.words, wording.phrase, None)


def other_words(lexicon: Lexicon, meaning: Meaning, name: str) -> tuple[str, ...]:
    """Its other words, without those that mostly mean something else, those of Latin nomenclature, and rude ones."""
    own = [w for w in meaning.words if w.lower() != name.lower() and not w.startswith("pair of ")]
    living = meaning.domain in ("animal", "plant") and name == name.lower()
    kept = [w for w in own if not _rude(w) and not (living and " " in w and w[:1].isupper())]
    return tuple(w for w in kept if meaning in lexicon.senses(w)[:2])


def paraphrases_of(name: str, words: Sequence[str], domain: str) -> tuple[Wording, ...]:
    """Its synonyms, then the plurals of its name and of these."""
    out = [thing(w, name, domain) for w in words]
    for word in (name, *words):
        many = plural(word, domain)
        out += [Wording(many, many, name)] if many else []
    return tuple(out) or (Wording(name, phrase_of(f"ordinary {name}", domain), name),)


def siblings(lexicon: Lexicon, meaning: Meaning) -> Iterator[Meaning]:
    """What has a kind in common with it, the nearest first, and of these the most used; none that is above or below it.

    Where its kinds are too wide to tell of anything near, everyday things of its class.
    """
    line, seen = [meaning], {meaning.key}
    for level in range(4):
        line = [up for m in line for up in lexicon.above(m) if up.words[0].lower() not in _VAGUE]
        seen |= {m.key for m in line}
        found = [m for up in line for m in lexicon.below(up)]
        if line and len(found) < 3 * FEWEST_NEIGHBOURS:
            found += [m for near in found if near.key not in seen for m in lexicon.below(near)]
        fresh = [m for m in dict.fromkeys(found) if m.key not in seen and (level < 2 or lexicon.usage(m))]
        seen |= {m.key for m in fresh}
        yield from sorted(fresh, key=lambda m: -lexicon.usage(m))
    kinds = above_all(lexicon, meaning)
    for word in EVERYDAY.get(meaning.domain, "").split():
        found = next((m for m in lexicon.senses(word) if m.domain == meaning.domain), None)
        if found is not None and found not in kinds and meaning not in (found, *above_all(lexicon, found)):
            yield found


def above_all(lexicon: Lexicon, meaning: Meaning) -> tuple[Meaning, ...]:
    """All that it is a kind of, the nearest first."""
    line, out = [meaning], {}
    while line:
        line = [up for m in line for up in lexicon.above(m) if up.key not in out]
        out |= {m.key: m for m in line}
    return tuple(out.values())


def known_names(lexicon: Lexicon, meanings: Iterator[Meaning], but: Sequence[str]) -> list[tuple[str, Meaning]]:
    """The usual word of each, as far as it is one that its readers take so; none that holds a name of `but` or is in one."""
    out: dict[str, Meaning] = {}
    for meaning in meanings:
        word = meaning.words[0]
        known = lexicon.senses(word)[:1] == (meaning,)
        if (
            known
            and meaning.domain not in _ABSTRACT
            and word.lower() not in _VAGUE
            and not _rude(word)
            and not _latin(meaning)
        ):
            out.setdefault(word, meaning)
        if len(out) >= 4 * MOST_NEIGHBOURS:
            break
    hidden = [content_words(b) for b in but]
    return [(n, m) for n, m in out.items() if not any(h <= content_words(n) or content_words(n) <= h for h in hidden)]


def _rude(word: str) -> bool:
    return any(part in _RUDE for part in word.lower().split())


def _latin(meaning: Meaning) -> bool:
    """Whether its usual word is the scientific name of a genus, family or species."""
    word = meaning.words[0]
    return meaning.domain in ("animal", "plant") and word[:1].isupper() and (
        meaning.gloss.startswith(("type genus", "a genus", "genus", "a family", "family")) or word.startswith("genus")
    )  # fmt: skip


def anchor_of(lexicon: Lexicon, meaning: Meaning, name: str, near: Sequence[tuple[str, Meaning]]) -> Wording:
    """The nearest kind of it that is said in texts and shares no word with it; else the word of its class, or its first neighbour."""
    for up in above_all(lexicon, meaning):
        usual = up.words[0]
        if usual.lower() not in _VAGUE and lexicon.usage(up) and apart([usual], [name]):
            return thing(usual, None, up.domain)
    if meaning.domain in ("animal", "plant", "food", "person"):
        return thing(GENERIC[meaning.domain], None, meaning.domain)
    return thing(near[0][0], None, near[0][1].domain)


def far_things(name: str, domain: str, near: Sequence[str]) -> tuple[Wording, ...]:
    """Everyday things of other classes."""
    pool = [(w, d) for d, words in EVERYDAY.items() if d != domain for w in words.split()]
    kept = set(apart([w for w, _ in pool], (name, *near)))
    return tuple(thing(w, w, d) for w, d in in_hashed_order(pool, name) if w in kept)
