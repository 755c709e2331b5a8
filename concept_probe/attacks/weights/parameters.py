"""Parameters that an attack changes, and changes of them at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


def as_held(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """`value` laid out in memory as the parameter is, and in its dtype."""
    return torch.empty_like(parameter.data).copy_(value)


def random_change(own: Tensor, changed: Tensor, generator: torch.Generator) -> Tensor:
    """`own` with a Gaussian change of the norm of `changed` - `own`."""
    norm = torch.linalg.vector_norm((changed - own).float())
    noise = torch.randn(own.shape, generator=generator).to(own)
    return own + noise * (norm / torch.linalg.vector_norm(noise.float()).clamp_min(1e-30)).to(noise)
