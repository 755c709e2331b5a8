"""A topic for language models: facts that a lexical database has of it, asked in several ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from concept_probe.concepts.kits.entries import apart, in_hashed_order
from concept_probe.concepts.kits.lexicon import Lexicon, Meaning
from concept_probe.concepts.kits.templates import LEAST
from concept_probe.concepts.kits.things import choose_sense, siblings
from concept_probe.concepts.kits.wording import content_words, description_of, first_clause, said_of
from concept_probe.types import SPLITS, Concept, Prompt, Splits

Term = tuple[str, str]
"""A word of a topic, and what it means."""
_FEWEST = LEAST * len(SPLITS)
_MOST = 20 * len(SPLITS)
_WRONG = 3
_LOOKED_AT = 200
"""Topics beside one that are looked at, those with marked terms first."""
TOPIC_GROUPS: dict[str, tuple[str, ...]] = {
    "sciences": ("physics", "chemistry", "astronomy", "biology", "geology", "mathematics", "genetics", "botany"),
    "mind and society": ("law", "psychology", "philosophy", "linguistics", "logic", "psychoanalysis"),
    "religions and myths": ("Judaism", "Hinduism", "Islam", "Christianity", "Greek mythology", "Norse mythology"),
    "games": ("baseball", "golf", "football", "American football"),
    "arts and crafts": ("music", "architecture", "computer science", "electronics", "medicine", "seafaring"),
}
"""Topics of which there are many terms, by what lies together."""
_FRAMES = {
    "target": "In {topic}, which term means: {gloss}?",
    "paraphrases": "Name the word of {topic} for this: {gloss}.",
    "implicit": "Which word means: {gloss}?",
}


def topic_concept(lexicon: Lexicon, name: str, sense: int | None) -> tuple[Concept, tuple[str, ...]]:
    """The concept of a topic, and what was chosen: `target` asks for its terms by what they mean, `paraphrases` asks the
    same in other words, `implicit` without the topic's name; neighbours and unrelated are other topics' terms in the
    target's sentence. Every prompt has its answer and wrong ones of the same topic.

    LookupError where the database has fewer than 36 terms of it, or of nothing near it.
    """
    chosen = choose_sense(lexicon, name, sense, None)
    meaning = chosen.meaning
    own = facts_of(lexicon, meaning)
    if len(own) < _FEWEST:
        raise LookupError(
            f"{lexicon.name} has {len(own)} terms of {name!r} ({meaning.gloss}), and a topic needs {_FEWEST}; choose a wider "
            "topic, or another sense with --sense"
        )
    own = own[:_MOST]
    taken = {term for term, _ in own}
    beside, apart_of_it = _topics_around(lexicon, name, meaning)
    near = _around(lexicon, beside, taken, own)
    far = _around(lexicon, apart_of_it, taken | {term for _, rows in near for term, _ in rows}, own)
    for what, rows in (("near", near), ("far from", far)):
        if sum(len(r) for _, r in rows) < _FEWEST:
            raise LookupError(
                f"{lexicon.name} has too few terms of topics {what} {name!r}; choose another sense or topic"
            )

    def asked(rows: Sequence[Term], topic: str, kind: str, label: str) -> list[Prompt]:
        words = [term for term, _ in rows]
        return [_asked(term, gloss, topic, kind, label, words) for term, gloss in rows]

    def dealt(prompts: Sequence[Prompt]) -> Splits:
        return Splits(*(tuple(prompts[i :: len(SPLITS)]) for i in range(len(SPLITS))))

    def of_others(groups: Sequence[tuple[str, list[Term]]]) -> Splits:
        prompts = [p for topic, rows in groups for p in asked(rows, topic, "target", topic)]
        return dealt(in_hashed_order(prompts, name)[: len(own)])

    anchor = [p for topic, rows in far for p in asked(rows, topic, "implicit", topic)][: len(own)]
    concept = Concept(
        name,
        target=dealt(asked(own, name, "target", name)),
        paraphrases=dealt(asked(own, name, "paraphrases", name)),
        implicit=dealt(asked(own, name, "implicit", name)),
        neighbours=of_others(near),
        anchor=dealt([Prompt(p.text, form="chat") for p in anchor]),
        unrelated=of_others(far),
    )
    return concept, (chosen.told(name, lexicon.name),)


def _asked(term: str, gloss: str, topic: str, kind: str, label: str, words: Sequence[str]) -> Prompt:
    wrong = tuple(w for w in in_hashed_order(words, term) if not content_words(w) & content_words(term))[:_WRONG]
    subject = None if kind == "implicit" else topic
    return Prompt(
        _FRAMES[kind].format(topic=topic, gloss=gloss), subject, label, "chat", (term,), wrong, f"{topic}: {term}"
    )


def facts_of(lexicon: Lexicon, topic: Meaning) -> list[Term]:
    """Terms of a topic with what they mean, none of which says the topic's name or the term: those that the database
    marks as its own, then its kinds and theirs, in an order that their own texts decide."""
    kinds, line = [], [topic]
    for _ in range(3):
        line = [m for up in line for m in lexicon.below(up)]
        kinds += line
    out: dict[str, str] = {}
    for meaning in dict.fromkeys((*lexicon.terms(topic), *(t for m in kinds for t in lexicon.terms(m)), *kinds)):
        names = (*meaning.words, *topic.words)
        text = description_of(meaning.gloss, names, "thing")
        told = said_of(first_clause(meaning.gloss), names) or said_of(meaning.words[0], topic.words)
        if text is not None and not told:
            out.setdefault(meaning.words[0], text)
    once = {gloss: term for term, gloss in reversed(out.items())}
    return in_hashed_order([(term, gloss) for gloss, term in once.items()], topic.words[0])


def _topics_around(lexicon: Lexicon, name: str, meaning: Meaning) -> tuple[list[Meaning], list[Meaning]]:
    """Topics near one and far from it: of its group and of the other groups; for one of no group, what has a kind in common
    with it, those with marked terms first, and the groups that hold none of these."""
    own = next((group for group in TOPIC_GROUPS.values() if {w.casefold() for w in group} & {name.casefold()}), ())
    near = [_richest(lexicon, word) for word in own if word.casefold() != name.casefold()]
    if not own:
        found = islice(siblings(lexicon, meaning), _LOOKED_AT)
        near = sorted(found, key=lambda m: not lexicon.terms(m))
    words = {w for m in near if m is not None for w in m.words}
    others = [w for g in TOPIC_GROUPS.values() if g != own and (own or not words & {*g}) for w in g]
    far = [_richest(lexicon, word) for word in in_hashed_order(apart(others, (name,)), name)]
    return [m for m in near if m is not None], [m for m in far if m is not None]


def _richest(lexicon: Lexicon, word: str) -> Meaning | None:
    """The sense of a word that has most terms."""
    return max(lexicon.senses(word), key=lambda m: len(lexicon.terms(m)), default=None)


def _around(
    lexicon: Lexicon, topics: Iterable[Meaning], taken: set[str], own: Sequence[Term]
) -> list[tuple[str, list[Term]]]:
    """Topics with terms that `taken` lacks, until there are as many terms as the topic has."""
    out, count = [], 0
    for topic in topics:
        rows = [row for row in facts_of(lexicon, topic) if row[0] not in taken][: max(LEAST, len(own) // 3)]
        if len(rows) >= 4:
            out.append((topic.words[0], rows))
            count += len(rows)
        if count >= len(own):
            break
    return out
