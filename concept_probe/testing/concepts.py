"""A small concept for tiny models, and a recogniser of its labels."""

from __future__ import annotations

from dataclasses import dataclass

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
