"""Small concepts for tiny models, and a recogniser of their labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from concept_probe.types import Concept, Prompt, Splits


def _splits(word: str, label: str | None, named: bool = True) -> Splits:
    def prompts(*texts: str) -> tuple[Prompt, ...]:
        return tuple(Prompt(t.format(word), word if named else None, label) for t in texts)

    return Splits(
        fit=prompts("a {}", "the {}", "the red {}", "a {} in the sun"),
        select=prompts("a red {}", "one {}", "my {}"),
        test=prompts("that {}", "see the {}", "this {}"),
    )


def tiny_concept() -> Concept:
    """`cat`, with a few prompts of every kind and split, and four random pictures as examples."""
    return Concept(
        name="cat",
        target=_splits("cat", "cat"),
        paraphrases=_splits("kitty", "cat"),
        implicit=_splits("pet that purrs", "cat", named=False),
        neighbours=_splits("dog", "dog"),
        anchor=_splits("thing", None),
        unrelated=_splits("sun", "sun"),
        examples=torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(7)),
    )


def made_up_concept(seed: int) -> Concept:
    """A concept of a word of random letters: the sentences of `tiny_concept`, whose own prompts are now to be kept."""
    letters = torch.randint(97, 123, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    word, cat = "".join(map(chr, letters)), tiny_concept()
    own = tuple(replace(p, text=p.text.replace(p.subject or p.text, word), subject=word) for p in cat.target.fit)
    return replace(
        cat, name=word, target=replace(cat.target, fit=own), paraphrases=Splits(), implicit=Splits(),
        unrelated=replace(cat.unrelated, fit=(*cat.unrelated.fit, *cat.target.fit)),
    )  # fmt: skip


def _facts(word: str, answer: str, texts: tuple[str, str] = ("see the {} in", "a {} and the")) -> tuple[Prompt, ...]:
    """Two questions, with an answer of several tokens and a wrong one."""
    return tuple(Prompt(t.format(word), word, word, answers=(answer,), distractors=("the dog",)) for t in texts)


def tiny_facts(word: str = "cat", answer: str = "red sun") -> Concept:
    """A concept with answers in words; its neighbours share neither word nor answer with it."""
    others, again = (("dog", "big house"), ("tree", "old road")), ("old {} in", "my {} and the")
    rest = Splits(
        fit=tuple(p for about in others for p in _facts(*about)),
        select=tuple(p for about in others for p in _facts(*about, again)),
    )
    own = Splits(_facts(word, answer), _facts(word, answer, again), _facts("pen", "my hat"))
    return Concept(word, own, neighbours=rest)


MADE_UP_FACTS = (("tub", "low wall"), ("jug", "new door"), ("fox", "cold rain"))
"""Words and answers of other concepts than that of `tiny_facts`."""


def tiny_quiz() -> Concept:
    """`cat`, with facts that have answers of one word: each text is a fact of its own."""
    answers = ("dog", "sun", "red", "the")

    def asked(word: str, *texts: str) -> tuple[Prompt, ...]:
        label = "cat" if word == "kit" else word
        return tuple(
            Prompt(
                text.format(word), word, label, answers=(answers[i],),
                distractors=tuple(a for a in answers if a != answers[i]), fact=text,
            )
            for i, text in enumerate(texts)
        )  # fmt: skip

    def splits(word: str) -> Splits:
        return Splits(
            asked(word, "a {} in", "{} and"), asked(word, "red {}"), asked(word, "the {} on", "{} at", "my {}")
        )

    return Concept("cat", splits("cat"), paraphrases=splits("kit"), neighbours=splits("dog"), unrelated=splits("hill"))


@dataclass(frozen=True)
class TinyRecogniser:
    """A fixed random linear map: repeatable, and right about nothing."""

    name: str = "tiny"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "dog", "sun", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        return self.logits(images).softmax(-1)

    def logits(self, images: Tensor) -> Tensor:
        weights = torch.randn(3 * 4 * 4, len(self.labels), generator=torch.Generator().manual_seed(0))
        small = torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1) - 0.5
        return 8 * small @ weights.to(small.device)


def tiny_recogniser() -> TinyRecogniser:
    """A recogniser of the labels of `tiny_concept`."""
    return TinyRecogniser()
