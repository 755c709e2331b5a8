"""Recognisers that look at pictures, and readers of texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from concept_probe.detect.answers import GoldAnswers
from concept_probe.registry import Registry, look_up
from concept_probe.types import Classifier, Concept, Judge, Recogniser

if TYPE_CHECKING:
    from concept_probe.detect.clip import TextImage


def _emoji_objects() -> Recogniser:
    from concept_probe.detect import emoji
    from concept_probe.testbed import WEIGHTS

    return emoji.load_emoji(WEIGHTS / "shared", head=0)


def _emoji_styles() -> Recogniser:
    from concept_probe.detect import emoji
    from concept_probe.testbed import WEIGHTS

    return emoji.load_emoji(WEIGHTS / "shared", head=1)


@cache
def text_image() -> TextImage:
    """The CLIP pair of the embedded models, see `detect.clip.TextImage`."""
    from concept_probe.detect import clip
    from concept_probe.testbed import WEIGHTS

    return clip.load_clip(WEIGHTS / "shared" / "clip")


def _nudenet() -> Recogniser:
    from concept_probe.detect import nudenet

    return nudenet.load_nudenet()


def second_classifier(looks: Judge) -> Classifier | None:
    """Another recogniser of the same labels, trained apart from `looks`; None where there is none.

    For what must not be judged by its own gradient. For the embedded models it is their CLIP pair, zero-shot.
    """
    from concept_probe.detect.clip import ZeroShot

    pair = pair_of(looks)
    return None if pair is None else ZeroShot(pair, looks.labels, (SENTENCES[looks.name],), ("a picture",))


def pair_of(looks: Judge) -> TextImage | None:
    """The CLIP pair for the pictures that `looks` judges; None where there is none."""
    return text_image() if looks.name in SENTENCES else None


SENTENCES = {"emoji": "a picture of {}", "emoji-style": "a picture in {} style"}
"""What a label of a recogniser is in words, for those whose pictures have a CLIP pair."""


RECOGNISERS: Registry[Callable[[], Recogniser]] = Registry(
    "recognisers", {"emoji": _emoji_objects, "emoji-style": _emoji_styles}
)
"""Name to what makes it. A concept is looked at by the first that has its label."""
OPTIONAL: dict[str, Callable[[], Recogniser]] = {"nudenet": _nudenet}
"""Those that need a package of their own, and are taken only by name."""


def recogniser(name: str) -> Recogniser:
    """The recogniser called `name`; `recogniser_for` picks one by what it must see."""
    known = {**RECOGNISERS, **OPTIONAL}
    return look_up(known, name, "recogniser", "the lists: concept_probe.detect.RECOGNISERS and OPTIONAL")()


def recogniser_for(concept: str) -> Recogniser:
    """The first recogniser that has `concept` among its labels."""
    labels: list[str] = []
    for make in RECOGNISERS.values():
        found = make()
        if concept in found.labels[:-1]:
            return found
        labels += found.labels[:-1]
    raise LookupError(
        f"no recogniser can see {concept!r}; they see {len(labels)} labels, among them {', '.join(labels[:5])}; "
        "pass one of your own (see types.Recogniser)"
    )


def judge_for(concept: Concept) -> Judge:
    """Who judges answers to a concept's prompts: its gold answers where its target prompts have some, else a recogniser.

    Raises LookupError where no recogniser sees the label of its prompts.
    """
    if any(p.answers for p in concept.target):
        return GoldAnswers.of(concept)
    return recogniser_for(next((p.label for p in concept.target if p.label), concept.name))
