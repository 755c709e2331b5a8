"""The concept that attacks on texts are tried on with tiny language models, which read few tokens."""

from __future__ import annotations

from concept_probe import detect
from concept_probe.attacks import ATTACKS, Attack
from concept_probe.types import Concept, Prompt, Sampling, Splits

SAMPLING = Sampling(tokens=2, batch=4)
ANSWERS = ("dog", "sun", "red", "the")


def asked(word: str, label: str, *texts: str) -> tuple[Prompt, ...]:
    """Prompts with an answer of one word each; the text is the fact."""
    out = []
    for i, text in enumerate(texts):
        right = ANSWERS[i % len(ANSWERS)]
        wrong = tuple(a for a in ANSWERS if a != right)
        out.append(Prompt(text.format(word), word, label, answers=(right,), distractors=wrong, fact=text))
    return tuple(out)


def splits(word: str, label: str) -> Splits:
    return Splits(
        asked(word, label, "a {} in", "{} and"),
        asked(word, label, "red {}"),
        asked(word, label, "the {} on", "{} at", "my {}"),
    )


CONCEPT = Concept(
    "cat", splits("cat", "cat"), paraphrases=splits("kit", "cat"), neighbours=splits("dog", "dog"),
    unrelated=splits("hill", "hill"),
)  # fmt: skip
NAMES = [name for name, attack in ATTACKS.items() if attack.on != "pictures"]


def made(name: str) -> Attack:
    return ATTACKS[name](detect.judge_for(CONCEPT), SAMPLING, **ATTACKS[name].tiny(CONCEPT))
