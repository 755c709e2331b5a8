"""Facts about real things that SmolLM2 was measured to know, as concepts for language models.

Each concept has a question and the beginning of a sentence per fact, with its answer and wrong answers of the same
kind. `benchmarks/smollm2_facts.py` measures them; a fact that the model does not know is not in the file.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from concept_probe.registry import UnknownName
from concept_probe.types import SPLITS, Concept, Form, Prompt, Split, Splits

FACTS_FILE = Path(__file__).parent / "data" / "facts.json"
_UNRELATED: dict[Split, int] = {"fit": 40, "select": 24, "test": 24}
"""How many facts of other domains each split asks for."""
WORDINGS = ("question", "cloze", "continuation", "chat", "choice")
"""What they are says `prompt`. A fact ships if it is known in the first two; the others are measured too."""


@dataclass(frozen=True)
class Fact:
    """One thing to know, in two wordings."""

    question: str
    stem: str
    """The beginning of a sentence that the answer ends."""
    answers: tuple[str, ...]
    """The usual wording first."""
    distractors: tuple[str, ...]
    """Wrong answers of the same kind."""


@dataclass(frozen=True)
class Topic:
    """A concept with its facts."""

    name: str
    domain: str
    """Concepts of one domain are neighbours."""
    facts: tuple[Fact, ...]
    holds: tuple[str, ...] = ()
    """Names of other concepts that are parts of this one."""

    def of(self, split: Split) -> tuple[Fact, ...]:
        """The facts of one split: dealt out in turn, so that the splits are alike."""
        return self.facts[SPLITS.index(split) :: len(SPLITS)]


@functools.cache
def topics() -> tuple[Topic, ...]:
    """Every packaged concept with its facts."""
    return read_topics(FACTS_FILE)


def kept() -> tuple[Topic, ...]:
    """The concepts that others are told from: those without parts."""
    return tuple(t for t in topics() if not t.holds)


def read_topics(path: Path) -> tuple[Topic, ...]:
    """The concepts in a file of facts; see `FACTS_FILE` for the form."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Topic(
            t["name"],
            t["domain"],
            tuple(Fact(f[0], f[1], tuple(f[2]), tuple(f[3])) for f in t["facts"]),
            tuple(t.get("holds", ())),
        )
        for t in found
    )


def topics_text(found: Sequence[Topic]) -> str:
    """What `read_topics` reads: one line per fact."""
    blocks = []
    for topic in found:
        facts = ",\n".join(
            "   " + json.dumps([f.question, f.stem, f.answers, f.distractors], ensure_ascii=False) for f in topic.facts
        )
        about = {"name": topic.name, "domain": topic.domain} | ({"holds": topic.holds} if topic.holds else {})
        head = json.dumps(about, ensure_ascii=False)[:-1]
        blocks.append(f'  {head}, "facts": [\n{facts}\n  ]}}')
    return "[\n" + ",\n".join(blocks) + "\n]\n"


def fact_names() -> tuple[str, ...]:
    """Every concept that has facts."""
    return tuple(t.name for t in topics())


def fact_concept(name: str) -> Concept:
    """The concept called `name`: its questions are `target`, its other wordings `paraphrases`.

    `neighbours` are facts of the same domain, `unrelated` facts of the others, in both as questions and as cloze. What
    is a part of the concept is no neighbour of it, and what has parts is kept by nobody: its parts are asked for.

    >>> concept("Japan").target.test[0].form
    'plain'
    """
    topic = _topic(name)
    near = [t for t in kept() if t.domain == topic.domain and t.name not in (name, *topic.holds)]
    far = [t for t in kept() if t.domain != topic.domain]

    def both(found: Iterable[tuple[Topic, Fact]]) -> tuple[Prompt, ...]:
        return tuple(prompt(t, fact, wording) for t, fact in found for wording in ("question", "cloze"))

    def own(split: Split, *wordings: str) -> tuple[Prompt, ...]:
        return tuple(prompt(topic, fact, wording) for wording in wordings for fact in topic.of(split))

    def others(split: Split) -> tuple[Prompt, ...]:
        every = sorted(((t, f) for t in far for f in t.of(split)), key=lambda p: _mark(name + p[1].stem))
        return both(every[: _UNRELATED[split] // 2])

    return Concept(
        name=name,
        target=Splits(*(own(s, "question") for s in SPLITS)),
        paraphrases=Splits(*(own(s, *WORDINGS[1:]) for s in SPLITS)),
        neighbours=Splits(*(both((t, f) for t in near for f in t.of(s)) for s in SPLITS)),
        unrelated=Splits(*(others(s) for s in SPLITS)),
    )


def fact_prompts(split: Split = "fit") -> tuple[Prompt, ...]:
    """Every fact of one split in every wording."""
    return tuple(prompt(t, fact, wording) for t in topics() for fact in t.of(split) for wording in WORDINGS)


def prompt(topic: Topic, fact: Fact, wording: str) -> Prompt:
    """A fact in one of the `WORDINGS`.

    `question`: the question and the beginning of its answer. `cloze`: that beginning alone. `continuation`: it after a
    sentence on the concept. `choice`: the question, the answers to choose from, and the beginning of the right one.
    These are plain texts that break off before the answer. `chat`: the question as a user's turn.
    """
    if wording == "question":
        return _prompt(topic, fact, f"{fact.question} {fact.stem}", "plain")
    if wording == "cloze":
        return _prompt(topic, fact, fact.stem, "plain")
    if wording == "continuation":
        return _prompt(topic, fact, f"Here is what I learned today about {topic.name}. {fact.stem}", "plain")
    if wording == "chat":
        return _prompt(topic, fact, fact.question, "chat")
    if wording == "choice":
        offered = sorted((fact.answers[0], *fact.distractors), key=lambda a: _mark(fact.stem + a))
        choice = f"Either {', '.join(offered[:-1])} or {offered[-1]}."
        return _prompt(topic, fact, f"{fact.question} {choice} {fact.stem}", "plain")
    raise UnknownName("wording", wording, WORDINGS)


def _prompt(topic: Topic, fact: Fact, text: str, form: Form) -> Prompt:
    named = topic.name if topic.name in text else None
    return Prompt(text, named, topic.name, form, fact.answers, fact.distractors, fact.question)


def _topic(name: str) -> Topic:
    for topic in topics():
        if topic.name == name:
            return topic
    packaged = ", ".join(fact_names())
    raise UnknownName(
        "concept",
        name,
        fact_names(),
        f"packaged for language models: {packaged}; for others write a concept file with answers",
    )


def _mark(text: str) -> int:
    return zlib.crc32(text.encode())
