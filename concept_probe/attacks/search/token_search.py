"""Words in the place of the concept's name, by projected gradient descent on embeddings (PEZ, arXiv 2302.03668)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.attacks.search.search import Goal, HardPrompt, Slopes, Step, denoised
from concept_probe.attacks.search.vocabulary import Slot, Vocabulary, in_place
from concept_probe.types import Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class TokenSearch(HardPrompt):
    """Replaces the concept's name by words under which the erased model denoises pictures of it well.

    Vectors descend along gradients that are taken at the words nearest to them, as if words could be moved.
    """

    words: int = 8
    """Words that are searched for."""
    rate: float = 0.3
    """Adam's step, as a multiple of the root mean square of the embeddings' entries."""

    name: ClassVar[str] = "token_search"

    def slot(self, prompt: Prompt) -> Slot:
        return in_place(prompt)

    def goal(self, subject: Subject, slots: Sequence[Slot]) -> Goal:
        return denoised(subject)

    def stepper(self, vocabulary: Vocabulary) -> Step:
        return projected(vocabulary, self.rate)


def projected(vocabulary: Vocabulary, rate: float) -> Step:
    """Vectors that Adam moves along gradients taken at the words nearest to them; what is read are those words.

    A step is `rate` times the root mean square of the embeddings' entries.
    """
    vectors: dict[Site, Tensor] = {}
    adam: list[torch.optim.Adam] = []
    sizes = {site: float(table.float().square().mean().sqrt()) for site, table in vocabulary.tables.items()}

    def step(ids: Tensor, slopes: Slopes) -> Tensor:
        if not adam:
            vectors.update({s: t.float()[ids.to(t.device)].clone() for s, t in vocabulary.tables.items()})
            adam.append(torch.optim.Adam([{"params": [v], "lr": rate * sizes[s]} for s, v in vectors.items()]))
        for site, vector in vectors.items():
            vector.grad = slopes[site]
        adam[0].step()
        return nearest(vocabulary, vectors)

    return step


def nearest(vocabulary: Vocabulary, vectors: dict[Site, Tensor]) -> Tensor:
    """Ids (L,) of the words whose embeddings point most nearly where vectors (L, d) do, over all text encoders."""
    unit = torch.nn.functional.normalize
    near = [(unit(vectors[site]) @ unit(table.float()).mT).cpu() for site, table in vocabulary.tables.items()]
    return torch.stack(near).sum(0).argmax(1)
