"""Where a tensor of a file belongs in a subject."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Piece:
    """One parameter that a tensor of a file speaks of, or the part of it that it speaks of."""

    where: str
    """Address of the parameter."""
    rows: tuple[int, int] | None = None
    """Rows of the file's tensor that are its own; None: all."""
    at: tuple[int, int] | None = None
    """Rows of the parameter that they are; None: all."""
    turned: bool = False
    """Whether the file holds it transposed."""


Names = Mapping[str, tuple[Piece, ...]]
"""Name of a tensor in a file to the places that it speaks of, its rows dealt out."""


def every_parameter(component: str, module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Name within the component, address, and tensor. One that is tied has every name, and the first one's address.

    What stands in the component itself, in none of its modules, has no address and is left out.
    """
    first: dict[int, str] = {}
    for name, x in module.named_parameters(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        if path:
            yield name, first.setdefault(id(x), f"{component}/{path}:{leaf}"), x


def is_clip(module: nn.Module) -> bool:
    """Whether a text encoder has the parts of CLIP's, whatever its class."""
    return any(name.endswith("encoder.layers.0.self_attn.q_proj") for name, _ in module.named_modules())
