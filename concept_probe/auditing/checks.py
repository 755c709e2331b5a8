"""What an audit refuses: used prompts, a recogniser that can't see the concept, and weights that did not stay."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from concept_probe import detect
from concept_probe.attacks import label_of
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.questions import Questions
from concept_probe.auditing.sides import Sides
from concept_probe.detect.naming import labels_in
from concept_probe.erasers.erasure.provenance import prompts_seen, shown_name
from concept_probe.registry import nearest
from concept_probe.types import KINDS, RETAIN_KINDS, Concept, Erasure, Judge, Kind, Split, fingerprint

if TYPE_CHECKING:
    from concept_probe.families import Subject


class UsedPrompts(ValueError):
    """Test prompts that something was fitted or selected on."""


def refuse_used(concept: Concept, erasure: Erasure | None) -> None:
    """Raise UsedPrompts if a test prompt is also a fit or select prompt of any kind, or the erasure says it used it.

    An erasure says so by fingerprints under `prompts_seen` of its `made_by`, and of the parts that it was made of.
    """
    # An anchor says what to draw instead: it is told to the eraser, and nothing is tested on it.
    kinds: list[Kind] = [kind for kind in KINDS if kind != "anchor"]
    earlier: tuple[Split, ...] = ("fit", "select")
    tests = {fingerprint(p.text): p.text for kind in kinds for p in concept.prompts(kind, "test")}
    used: dict[str, str] = {}
    for kind in kinds:
        for split in earlier:
            for p in concept.prompts(kind, split):
                if fingerprint(p.text) in tests:
                    used[fingerprint(p.text)] = f"{p.text!r} ({kind}, {split})"
    if erasure is not None:
        for seen in prompts_seen(erasure.made_by):
            if seen in tests:
                used[seen] = f"{tests[seen]!r} (told to the erasure)"
    if used:
        shown = "; ".join(list(used.values())[:8]) + ("; ..." if len(used) > 8 else "")
        raise UsedPrompts(
            f"audit of {concept.name!r}: {len(used)} test prompts were used to fit or select: {shown}. "
            "Numbers on them say nothing about other prompts; take them out of one side"
        )


def warn_of_another(concept: Concept, erasure: Erasure | None) -> None:
    """Warn of an erasure that was made for other concepts: that this one is left says nothing against it."""
    meant = getattr(erasure, "concept", None)
    if erasure is not None and meant and concept.name not in (meant, *meant.split("+")):
        warnings.warn(
            f"{shown_name(erasure)} was made for {meant!r}, and the audit is of {concept.name!r}: what is found says what it "
            "does to another concept than its own",
            stacklevel=4,
        )


def judge_of(concept: Concept, recogniser: Judge | str | None, subject: Subject) -> tuple[str, Judge]:
    """The label of the concept, and who judges whether an answer of the subject shows it.

    Warns where the recogniser was made for pictures of other models. Raises LookupError where none is given and none
    belongs to the subject.

    ValueError for a concept without target prompts to test, and where the recogniser has no such label: it would
    call everything safe.
    """
    label = label_of(concept)
    judge = detect.judge_for(concept, subject) if recogniser is None else recogniser
    judge = detect.recogniser(judge, labels_in(concept)) if isinstance(judge, str) else judge
    if detect.serves(judge, subject) is False:
        warnings.warn(
            f"recogniser {judge.name!r} was made for the pictures of other models: how often it is wrong on those of "
            f"{subject.name!r} is not known; measure it first (evaluation.recogniser_rates)"
        )
    if label not in judge.labels:
        near = nearest(label, judge.labels)
        hint = f"; nearest of its labels: {', '.join(map(repr, near))}" if near else ""
        raise ValueError(
            f"recogniser {judge.name!r} has no label {label!r}, so it can never see the concept{hint}; "
            "give another `recogniser=`, or prompts with a label that it knows"
        )
    if not concept.prompts("target", "test"):
        raise ValueError(f"audit of {concept.name!r}: the concept has no target prompts in its test split")
    return label, judge


def refuse_without_control(questions: Questions, twin: bool) -> None:
    """ValueError where nothing tells what a model says that was never taught the concept: no twin, and nothing else to ask."""
    if not twin and not questions.prompts_of(RETAIN_KINDS):
        raise ValueError(
            f"audit of {questions.concept.name!r}: there is no twin, and the concept has no neighbours and no unrelated prompts in "
            "its test split, whose answers stand in for one; give a twin, or a concept with other things to ask for"
        )


def refuse_changed(arms: Sides[Arm]) -> None:
    """Raise RuntimeError if a subject does not hold the bytes that it held when the audit began, its erasure on."""
    for arm in arms:
        with arm.on():
            now = arm.subject.weight_hash(whole=True)
        if now != arm.hash:
            raise RuntimeError(
                f"the audit changed the weights of {arm.subject.name!r} ({arm.name}): {arm.hash} became {now}; its "
                "numbers can't be trusted. An attack or an erasure did not clean up"
            )
