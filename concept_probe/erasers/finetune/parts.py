"""Which parameters of a denoiser are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

DenoiserPart = Literal["x", "u", "strict", "all"]
"""`x` all of cross-attention, `u` all of the denoiser but that, `strict` keys and values of cross-attention, `all`. In a
diffusion transformer whose attention is joint, that attention, and the keys and values of its text."""
ADAPTED_ROLES = ("cross_query", "cross_key", "cross_value")
"""Roles of the linear modules that adapters stand beside."""


def denoiser_parameters(subject: Subject, part: DenoiserPart) -> list[str]:
    """Addresses of the parameters of a part of the denoiser."""
    keys, values = (subject.sites(subject.counterpart(f"cross_{name}_weight")) for name in ("key", "value"))
    component = keys[0].component
    if part == "strict":
        return [f"{component}/{site.path}:weight" for site in (*keys, *values)]
    inside = tuple(site.path.rpartition(".")[0] + "." for site in keys)
    out = []
    for name, _ in subject.components[component].named_parameters():
        if part == "all" or name.startswith(inside) == (part == "x"):
            out.append(f"{component}/{name.rpartition('.')[0]}:{name.rpartition('.')[2]}")
    return out


def weights_at(subject: Subject, roles: Sequence[str]) -> list[Site]:
    """The weights of the linear modules at `roles`."""
    return [
        Site(site.component, site.path, "weight") for role in roles for site in subject.sites(subject.counterpart(role))
    ]
