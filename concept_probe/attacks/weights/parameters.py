"""Parameters that an attack changes: which there are, what edits have put aside, and how they come back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

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


def put_aside(subject: Subject) -> dict[int, tuple[nn.Parameter, Tensor]]:
    """By id, the parameters that edits which are on have changed, with what they held before the first of them."""
    out: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for parameter, original in subject.replaced:
        out.setdefault(id(parameter), (parameter, original))
    return out


@contextlib.contextmanager
def restoring(parameters: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Copies of the parameters; on leaving, each parameter holds those bytes again, also after an error."""
    tensors = [p.data for p in parameters]
    originals = [t.clone() for t in tensors]
    try:
        yield originals
    finally:
        with torch.no_grad():
            for parameter, tensor, original in zip(parameters, tensors, originals, strict=True):
                tensor.copy_(original)
                parameter.data = tensor


@torch.no_grad()
def shake(parameters: Sequence[nn.Parameter], originals: Sequence[Tensor], generator: torch.Generator) -> None:
    """Replace what training did to each parameter by a Gaussian change of the same norm."""
    for parameter, original in zip(parameters, originals, strict=True):
        norm = torch.linalg.vector_norm((parameter - original).float())
        noise = torch.randn(original.shape, generator=generator).to(original)
        change = noise * (norm / torch.linalg.vector_norm(noise.float()).clamp_min(1e-30)).to(noise)
        parameter.copy_(original + change)
