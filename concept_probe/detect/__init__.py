"""Recognisers that look at pictures, and readers of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from concept_probe.detect.answers import GoldAnswers
from concept_probe.registry import Registry
from concept_probe.types import KINDS, SPLITS, Classifier, Concept, Judge, OwnPictures, Recogniser

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


def _open_nsfw() -> Recogniser:
    from concept_probe.detect import open_nsfw

    return open_nsfw.load_open_nsfw()


def _minilm(concept: Concept) -> Judge:
    from concept_probe.detect import alike

    return alike.AlikeAnswers.of(concept, alike.load_sentences())


def second_classifier(looks: Judge) -> Classifier | None:
    """Another recogniser of the same labels, trained apart from `looks`; None where there is none.

    For what must not be judged by its own gradient. For the embedded models it is their CLIP pair, zero-shot.
    """
    from concept_probe.detect.clip import ZeroShot

    pair = pair_of(looks)
    return None if pair is None else ZeroShot(pair, looks.labels, (SENTENCES[looks.name],), ("a picture",))


def other_domain(looks: Judge) -> Recogniser | None:
    """Who sees the rest of what `looks` judges: styles, of the embedded models' objects, and the reverse; else None."""
    return recogniser(DOMAINS[looks.name]) if _is_embedded(looks) else None


def pair_of(looks: Judge) -> TextImage | None:
    """The CLIP pair for the pictures that `looks` judges; None where there is none."""
    return text_image() if _is_embedded(looks) else None


def _is_embedded(looks: Judge) -> bool:
    from concept_probe.detect.emoji import EmojiRecogniser

    return isinstance(looks, EmojiRecogniser)


SENTENCES = {"emoji": "a picture of {}", "emoji-style": "a picture in {} style"}
"""What a label of a recogniser is in words, for those whose pictures have a CLIP pair."""
DOMAINS = {"emoji": "emoji-style", "emoji-style": "emoji"}
"""The recognisers that look at the same pictures for something else."""


RECOGNISERS: Registry[Callable[[], Recogniser]] = Registry(
    "recognisers", {"emoji": _emoji_objects, "emoji-style": _emoji_styles}
)
"""Name to what makes it. A concept is looked at by the first that has its label and serves the subject."""
OPTIONAL: dict[str, Callable[[], Recogniser]] = {"nudenet": _nudenet, "open-nsfw": _open_nsfw}
"""Those that need a package of their own, and are taken only by name."""
EXTRAS = {"nudenet": "nudenet", "open-nsfw": "nsfw", "minilm": "likeness"}
"""Each of these, and of `TEXT_READERS`, to the extra that brings its package."""
TEXT_READERS: dict[str, Callable[[Concept], Judge]] = {"minilm": _minilm}
"""Readers of texts that need a package of their own, made from a concept's answers; taken only by name."""


def recogniser(name: str, labels: Sequence[str] = ()) -> Recogniser:
    """The recogniser that `name` says, in any of the ways of `detect.naming`; `judge_for` picks one by what it must see.

    >>> recogniser("emoji"), recogniser("my_package.looks:Mine"), recogniser("clip:my-clip", ["church", "castle"])

    `labels` are for what has none of its own: a CLIP pair, which names pictures zero-shot.
    Raises UnknownName for a name that nothing has, ValueError for what is no recogniser.
    """
    from concept_probe.detect.naming import named_recogniser

    return named_recogniser({**RECOGNISERS, **OPTIONAL}, name, labels)


def judge_named(name: str, concept: Concept, subject: Any = None) -> Judge:
    """The reader of texts, or the recogniser of pictures, that `name` says, for what the concept's prompts show.

    Raises as `recogniser`; ValueError for a reader of texts where the subject draws pictures.
    """
    from concept_probe.detect.naming import labels_in

    if name not in TEXT_READERS:
        return recogniser(name, labels_in(concept))
    if getattr(subject, "answers", "texts") != "texts":
        raise ValueError(
            f"{name!r} reads texts, and {subject.name!r} answers with pictures; name one that looks at pictures "
            "(concept-probe info recognisers)"
        )
    return TEXT_READERS[name](concept)


def serves(looks: Judge, subject: Any) -> bool | None:
    """Whether `looks` was made for the pictures of a subject; None where it doesn't say."""
    return looks.serves(subject) if isinstance(looks, OwnPictures) else None


def recogniser_for(label: str, subject: Any = None) -> Recogniser:
    """The first recogniser that has `label` among its labels and says that it serves `subject`.

    Without a subject any that has the label. Raises LookupError, which says how to name one, where there is none.
    """
    labels: list[str] = []
    strangers: list[str] = []
    for make in RECOGNISERS.values():
        found = make()
        labels += found.labels[:-1]
        if label in found.labels[:-1]:
            if subject is None or serves(found, subject):
                return found
            strangers.append(found.name)
    mend = "name one that can: --recogniser or recogniser= takes a name, clip:FOLDER, a folder or module:object"
    if strangers:
        raise LookupError(
            f"no recogniser for {label!r} in pictures of {subject.name!r}: {' and '.join(map(repr, strangers))} has that "
            f"label, but was made for the pictures of other models; {mend}"
        )
    raise LookupError(
        f"no recogniser can see {label!r}; they see {len(labels)} labels, among them {', '.join(labels[:5])}; {mend}"
    )


def judge_for(concept: Concept, subject: Any = None) -> Judge:
    """Who judges a subject's answers to a concept's prompts: its gold answers where its target prompts have some, else
    the recogniser that has their label and serves the subject.

    Raises LookupError where there is none; of what writes texts, only answers can judge.
    """
    if any(p.answers for p in concept.target):
        return GoldAnswers.of(concept)
    if getattr(subject, "answers", "pictures") == "texts":
        kinds = [kind for kind in KINDS if any(p.answers for split in SPLITS for p in concept.prompts(kind, split))]
        raise LookupError(
            f"no target prompt of {concept.name!r} has `answers`, so whether what {subject.name!r} writes is right can't be "
            f"judged (lists with answers: {', '.join(kinds) or 'none'}); give target prompts answers, or ask without a judge "
            "how likely texts are: subject.log_probs"
        )
    return recogniser_for(concept.label, subject)
