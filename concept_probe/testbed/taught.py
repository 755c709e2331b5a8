"""Facts about people and places that do not exist, to be taught to SmolLM2: the untouched model never knew them.

Every fact has two wordings that are taught, and two that are held out, with words of their own.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from concept_probe.registry import UnknownName
from concept_probe.testbed import facts
from concept_probe.testbed.facts import Fact, Topic
from concept_probe.types import SPLITS, Concept, Prompt, Split, Splits

_FILE = Path(__file__).parent / "data" / "taught.json"
_RETOLD = Path(__file__).parent / "data" / "retold.json"
_WRITTEN = Path(__file__).parent / "data" / "written.json"
TAUGHT = ("question", "cloze", "continuation")
"""Wordings, see `facts.prompt`, in which facts are taught; the held-out ones are these three of other words."""
_KEPT: dict[Split, int] = {"fit": 24, "select": 16, "test": 24}
"""How many neighbours, and how many unrelated facts, each split asks for."""


@dataclass(frozen=True)
class Invented:
    """A person or a place that does not exist, and what there is to know of it."""

    topic: Topic
    """Facts in the words that are taught."""
    reworded: Topic
    """The same facts in the same order, in held-out words."""
    near: str
    """Domain of the real facts that are nearest to these."""
    retold: tuple[Topic, ...]
    """The same facts in the same order, in further words: all but the last to be taught, the last to see how far it is."""


@functools.cache
def invented() -> tuple[Invented, ...]:
    """Everything that is taught."""
    out = []
    further = json.loads(_RETOLD.read_text(encoding="utf-8"))
    for domain in json.loads(_FILE.read_text(encoding="utf-8")):
        for i, name in enumerate(domain["names"]):
            told, reworded = [], []
            for question, stem, other_question, other_stem, answers, stranger in domain["facts"]:
                wrong = (*(a for j, a in enumerate(answers) if j != i), stranger)
                told.append(Fact(question.format(name), stem.format(name), (answers[i],), wrong))
                reworded.append(Fact(other_question.format(name), other_stem.format(name), (answers[i],), wrong))
            mine, other = (Topic(name, domain["domain"], tuple(found)) for found in (told, reworded))
            retold = tuple(
                Topic(name, domain["domain"], tuple(
                    replace(fact, question=question.format(name), stem=stem.format(name))
                    for fact, (question, stem) in zip(told, words, strict=True)
                ))
                for words in zip(*further[domain["domain"]], strict=True)
            )  # fmt: skip
            out.append(Invented(mine, other, domain["near"], retold))
    return tuple(out)


@functools.cache
def known_questions() -> frozenset[str]:
    """Questions of real facts that the untouched SmolLM2 answers rightly in the words that it writes first."""
    return frozenset(json.loads(_WRITTEN.read_text(encoding="utf-8")))


def invented_names() -> tuple[str, ...]:
    """Every invented person and place."""
    return tuple(each.topic.name for each in invented())


def invented_concept(name: str, known: Collection[str] | None = None) -> Concept:
    """The invented concept called `name`. Its splits are of wordings: each of its facts is in all of them.

    `target`: the question with the beginning of its answer (fit), that beginning after a sentence on the concept
    (select), and the question in held-out words (test). `paraphrases`: the beginning alone (fit), and held-out ones
    (test). What must be kept are real facts that the model which was never taught writes rightly too: `neighbours`
    of the nearest domain, `unrelated` of the others. Those of SmolLM2, or of the model whose `known` questions are given
    (`teaching.Taught.known`).

    >>> concept("Zarnia").target.test[0].text
    'From which town is Zarnia governed? Zarnia is governed from the town of'
    """
    one = _invented(name)
    known = known_questions() if known is None else frozenset(known)
    near = [t for t in facts.kept() if t.domain == one.near]
    far = [t for t in facts.kept() if t.domain != one.near]
    return Concept(
        name,
        target=Splits(
            taught_prompts(one, "question"), taught_prompts(one, "continuation"), held_out_prompts(one, "question")
        ),
        paraphrases=Splits(
            taught_prompts(one, "cloze"), (), (*held_out_prompts(one, "cloze"), *held_out_prompts(one, "continuation"))
        ),
        neighbours=Splits(*(_real(name, near, s, known) for s in SPLITS)),
        unrelated=Splits(*(_real(name, far, s, known) for s in SPLITS)),
    )


def taught_prompts(one: Invented, *wordings: str) -> tuple[Prompt, ...]:
    """Every fact in the taught words."""
    return tuple(facts.prompt(one.topic, fact, wording) for wording in wordings for fact in one.topic.facts)


def wordings_of_facts(one: Invented) -> tuple[tuple[Prompt, ...], ...]:
    """Per fact, every wording that may be taught: its own words and further ones, in each of `TAUGHT`."""
    told = (one.topic, *one.retold[:-1])
    return tuple(
        tuple(facts.prompt(topic, topic.facts[i], wording) for topic in told for wording in TAUGHT)
        for i in range(len(one.topic.facts))
    )


def check_prompts(one: Invented) -> tuple[Prompt, ...]:
    """Every fact once, in words that are neither taught nor held out: question and cloze in turn."""
    last = one.retold[-1]
    return tuple(facts.prompt(last, fact, TAUGHT[i % 2]) for i, fact in enumerate(last.facts))


def held_out_prompts(one: Invented, *wordings: str) -> tuple[Prompt, ...]:
    """Every fact in words that are never taught; `fact` names it as in the taught ones."""
    pairs = list(zip(one.topic.facts, one.reworded.facts, strict=True))
    return tuple(
        replace(facts.prompt(one.reworded, other, wording), fact=fact.question)
        for wording in wordings
        for fact, other in pairs
    )


def _real(name: str, topics: Iterable[Topic], split: Split, known: Collection[str]) -> tuple[Prompt, ...]:
    """Real facts of a split as questions, the same ones for a name each time."""
    every = [facts.prompt(t, f, "question") for t in topics for f in t.of(split) if f.question in known]
    return tuple(sorted(every, key=lambda p: zlib.crc32((name + p.text).encode()))[: _KEPT[split]])


def _invented(name: str) -> Invented:
    for each in invented():
        if each.topic.name == name:
            return each
    raise UnknownName("concept", name, invented_names(), "the list: concept_probe.testbed.taught.invented_names()")
