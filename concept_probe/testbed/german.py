"""Facts asked for in German: all that are taught, and some real ones.

What was erased in English may still be said in another language. A right answer is the German word, or the English
one where a model says that instead.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

from concept_probe.testbed import facts
from concept_probe.testbed.taught import invented
from concept_probe.types import Prompt

_FILE = Path(__file__).parent / "data" / "german.json"


@functools.cache
def german() -> dict[str, Prompt]:
    """By `Prompt.fact`: the question in German with the beginning of its answer."""
    found = json.loads(_FILE.read_text(encoding="utf-8"))
    out: dict[str, Prompt] = {}
    for one in invented():
        same = [o.topic.name for o in invented() if o.topic.domain == one.topic.domain]
        at = same.index(one.topic.name)
        for fact, (question, stem, answers) in zip(one.topic.facts, found["taught"][one.topic.domain], strict=True):
            text = f"{question} {stem}".replace("{}", one.topic.name)
            wrong = [*(a for i, each in enumerate(answers) if i != at for a in each), *fact.distractors]
            out[fact.question] = _prompt(
                text, one.topic.name, (*answers[at], *fact.answers), tuple(wrong), fact.question
            )
    for topic in facts.topics():
        for fact in topic.facts:
            if fact.question in found["real"]:
                question, stem, answers, wrong = found["real"][fact.question]
                right = (*answers, *fact.answers)
                text, other = f"{question} {stem}", (*wrong, *fact.distractors)
                out[fact.question] = _prompt(text, topic.name, right, other, fact.question)
    return out


def _prompt(text: str, name: str, right: tuple[str, ...], wrong: tuple[str, ...], fact: str) -> Prompt:
    named = name if name in text else None
    prompt = Prompt(text, named, name, "plain", tuple(dict.fromkeys(right)), (), fact)
    return replace(prompt, distractors=tuple(w for w in dict.fromkeys(wrong) if w not in prompt.answers))
