"""Which prompt each of a concept's prompts is led to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from concept_probe.families.text.tokens import subject_spans
from concept_probe.types import KINDS, Concept, Prompt

WORD = re.compile(r"\w+")
LETTERS = r"[^\W\u0e00-\u109f\u1780-\u17ff\u2e80-\U0010ffff]+"
BEGUN, GOES_ON = re.compile(rf"{LETTERS}$"), re.compile(LETTERS)
"""What of a word stands before a place, and after it, in a script that parts words."""


def destinations_of(
    prompts: Sequence[Prompt], concept: Concept, guide: str | None, method: str
) -> dict[Prompt, Prompt]:
    """Each of a concept's fit prompts, with the prompt that it is led to.

    >>> destinations_of([Prompt("a cat in a catalogue", "cat")], concept, "dog", "uce")
    {Prompt('a cat in a catalogue', 'cat'): Prompt('a dog in a catalogue', 'dog')}

    A `guide` stands where that prompt says its subject, whole words (see `renamed`); of a prompt that names no subject it
    takes the place of all. Without one, anchors (fit split) are paired by place: with all `prompts` where they are as
    many, else with each list of the concept's that is as long as theirs. What is left takes the anchor that shares
    most words with it, subjects of both left out; the first of equals.

    Raises ValueError where there is neither guide nor anchor, and for destinations that are the prompts themselves.
    """
    if guide is not None:
        led = {p: renamed(p, guide.strip()) if p.subject else Prompt(guide.strip()) for p in prompts}
    else:
        anchors = concept.prompts("anchor", "fit")
        if not anchors:
            raise ValueError(f"{method}: concept {concept.name!r} has no anchor prompts (fit split); give a `guide`")
        places = _places(prompts, concept, len(anchors))
        led = {p: anchors[places[p]] if p in places else closest_anchor(p, anchors) for p in prompts}
    if prompts and all(p.text.casefold() == to.text.casefold() for p, to in led.items()):
        what = f"guide {guide!r}" if guide is not None else f"the anchor of {concept.name!r}"
        raise ValueError(
            f"{method}: {what} leads every prompt to itself, as {prompts[0].text!r}; name something else than the concept"
        )
    return led


def _places(prompts: Sequence[Prompt], concept: Concept, count: int) -> dict[Prompt, int]:
    """Which of `count` anchors a prompt is led to, of those that are led by their place."""
    lists = [prompts, *(concept.prompts(kind, "fit") for kind in KINDS if kind != "anchor")]
    out: dict[Prompt, int] = {}
    for one in lists:
        if len(one) == count:
            for i, prompt in enumerate(one):
                out.setdefault(prompt, i)
    return out


def renamed(prompt: Prompt, name: str) -> Prompt:
    """The prompt with another name wherever it says its subject; what it asks for is then another thing.

    Whole words where there are some, in any case, as for the kinds of tokens: a name inside another word stays. With no
    name the subject is left out. ValueError for a name that stands only inside other words.
    """
    text = prompt.text
    if name:
        _refuse_parts_of_words(prompt)
    for start, stop in reversed(subject_spans(prompt)):
        text = text[:start] + name + text[stop:]
    text = text if name else " ".join(text.split())
    return replace(prompt, text=text, subject=name or None, label=None, answers=(), distractors=(), fact=None)


def _refuse_parts_of_words(prompt: Prompt) -> None:
    """ValueError where the text says its subject only inside longer words, its plural aside.

    Scripts that part no words, from Thai on, are read as ever.
    """
    for start, stop in subject_spans(prompt):
        before, after = BEGUN.search(prompt.text[:start]), GOES_ON.match(prompt.text[stop:])
        if before or (after and after[0].lower() not in ("s", "es")):
            word = f"{before[0] if before else ''}{prompt.text[start:stop]}{after[0] if after else ''}"
            raise ValueError(
                f"the subject {prompt.subject!r} stands in {prompt.text!r} only inside the word {word!r}, so no other name can "
                "stand there; name whole words of the text, or leave the subject None"
            )


def closest_anchor(prompt: Prompt, anchors: Sequence[Prompt]) -> Prompt:
    """The anchor that shares most words with a prompt, subjects of both left out; the first of equals."""
    own = _words(prompt)
    return max(anchors, key=lambda anchor: len(own & _words(anchor)))


def _words(prompt: Prompt) -> set[str]:
    """The words of a prompt outside its subject."""
    return set(WORD.findall((renamed(prompt, "") if prompt.subject else prompt).text.lower()))


def texts_of(led: Mapping[Prompt, Prompt]) -> dict[str, str]:
    """The text of each prompt, with that of its destination: what an erasure says under `guides`."""
    return {prompt.text: destination.text for prompt, destination in led.items()}


def prompts_by_destination(led: Mapping[Prompt, Prompt]) -> dict[Prompt, list[Prompt]]:
    """Each destination, with the prompts that are led to it."""
    out: dict[Prompt, list[Prompt]] = {}
    for prompt, destination in led.items():
        out.setdefault(destination, []).append(prompt)
    return out
