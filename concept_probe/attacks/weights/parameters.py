"""Parameters that an attack changes: which there are, and how they come back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from concept_probe.families.state import swapped

if TYPE_CHECKING:
    from concept_probe.families import Subject


def matrices(subject: Subject) -> list[nn.Parameter]:
    """Weights of linear maps and convolutions of every component that reads the prompt or makes the answer.

    Embedding tables, norms and biases are left out, as is the autoencoder of a pipeline, which knows no prompt.
    """
    components = dict.fromkeys(site.component for role in subject.roles() for site in subject.sites(role))
    found: dict[int, nn.Parameter] = {}
    tables: set[int] = set()
    for component in components:
        for module in subject.components[component].modules():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, nn.Parameter) or weight.ndim < 2:
                continue
            if isinstance(module, nn.Embedding):
                tables.add(id(weight))
            else:
                found[id(weight)] = weight
    return [p for key, p in found.items() if key not in tables]


@contextlib.contextmanager
def restoring(parameters: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Work on copies; yields the parameters' own tensors, which come back at the end, also after an error."""
    originals = [p.data for p in parameters]
    with swapped((p, p.data.clone()) for p in parameters):
        yield originals


@torch.no_grad()
def shake(parameters: Sequence[nn.Parameter], originals: Sequence[Tensor], generator: torch.Generator) -> None:
    """Replace what training did to each parameter by a Gaussian change of the same norm."""
    for parameter, original in zip(parameters, originals, strict=True):
        norm = torch.linalg.vector_norm((parameter - original).float())
        noise = torch.randn(original.shape, generator=generator).to(original)
        change = noise * (norm / torch.linalg.vector_norm(noise.float()).clamp_min(1e-30)).to(noise)
        parameter.copy_(original + change)
