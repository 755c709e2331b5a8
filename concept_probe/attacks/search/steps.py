"""Ways from the words at hand to those that are looked at next."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from concept_probe.attacks.search.objective import WordGradients
from concept_probe.attacks.search.vocabulary import Vocabulary
from concept_probe.types import Site

SearchStep = Callable[[Tensor, WordGradients], Tensor]
"""(ids (L,), gradients) -> ids (L,) to look at next."""


def projected_adam(vocabulary: Vocabulary, rate: float) -> SearchStep:
    """Vectors that Adam moves along gradients taken at the words nearest to them; what is read are those words.

    A step is `rate` times the root mean square of the embeddings' entries.
    """
    vectors: dict[Site, Tensor] = {}
    adam: list[torch.optim.Adam] = []
    sizes = {site: float(table.float().square().mean().sqrt()) for site, table in vocabulary.tables.items()}

    def step(ids: Tensor, gradients: WordGradients) -> Tensor:
        if not adam:
            vectors.update({s: t.float()[ids.to(t.device)].clone() for s, t in vocabulary.tables.items()})
            adam.append(torch.optim.Adam([{"params": [v], "lr": rate * sizes[s]} for s, v in vectors.items()]))
        for site, vector in vectors.items():
            vector.grad = gradients[site]
        adam[0].step()
        return nearest_words(vocabulary, vectors)

    return step


def nearest_words(vocabulary: Vocabulary, vectors: dict[Site, Tensor]) -> Tensor:
    """Ids (L,) of the words whose embeddings point most nearly where vectors (L, d) do, over all text encoders."""
    unit = torch.nn.functional.normalize
    near = [(unit(vectors[site]) @ unit(table.float()).mT).cpu() for site, table in vocabulary.tables.items()]
    return torch.stack(near).sum(0).argmax(1)
