"""Which parameters of a denoiser are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from torch import nn

from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

DenoiserPart = Literal["x", "u", "strict", "all"]
"""`x` all of cross-attention, `u` all of the denoiser but that, `strict` keys and values of cross-attention, `all`. In a
diffusion transformer whose attention is joint, that attention, and the keys and values of its text."""
ADAPTED_ROLES = ("cross_query", "cross_key", "cross_value")
"""Roles of the linear modules that adapters stand beside."""


def denoiser_parameters(subject: Subject, part: DenoiserPart, matrices_only: bool = False) -> list[str]:
    """Addresses of the parameters of a part of the denoiser; with `matrices_only` of linear and convolutional modules alone."""
    keys, values = (subject.sites(subject.counterpart(f"cross_{name}_weight")) for name in ("key", "value"))
    component = keys[0].component
    if part == "strict":
        return [f"{component}/{site.path}:weight" for site in (*keys, *values)]
    inside = tuple(site.path.rpartition(".")[0] + "." for site in keys)
    out = []
    denoiser = subject.components[component]
    for name, _ in denoiser.named_parameters():
        if matrices_only and not isinstance(denoiser.get_submodule(name.rpartition(".")[0]), (nn.Linear, nn.Conv2d)):
            continue
        if part == "all" or name.startswith(inside) == (part == "x"):
            out.append(f"{component}/{name.rpartition('.')[0]}:{name.rpartition('.')[2]}")
    return out


AdaptedModules = Literal["transformers", "but_cross_attention"]
"""`transformers`: every linear and convolutional module of the transformers inside a U-Net, attention, feed-forward and the
projections around them; `but_cross_attention`: those of self-attention, residual blocks and samplers."""
TRANSFORMER, BLOCKS = "Transformer2DModel", ("ResnetBlock2D", "Downsample2D", "Upsample2D")
"""Classes of diffusers, by name, that these lie inside."""


def adapted_sites(subject: Subject, roles: Sequence[str], modules: AdaptedModules | None) -> list[Site]:
    """The weights that adapters stand beside: those at `roles`, or of `modules` where that is given.

    ValueError for a denoiser that has none of these modules, as one that is no U-Net.
    """
    if modules is None:
        return weights_at(subject, roles)
    keys = subject.sites(subject.counterpart("cross_key_weight"))
    component, crossing = keys[0].component, tuple(site.path.rpartition(".")[0] + "." for site in keys)
    named = dict(subject.components[component].named_modules())
    classes = {path: type(module).__name__ for path, module in named.items()}
    attentions = {classes[path.rstrip(".")] for path in crossing}
    around = {TRANSFORMER} if modules == "transformers" else {*attentions, *BLOCKS}
    inside = tuple(f"{path}." for path, kind in classes.items() if kind in around)
    out = [
        Site(component, path, "weight")
        for path, module in named.items()
        if isinstance(module, (nn.Linear, nn.Conv2d))
        and path.startswith(inside)
        and (modules == "transformers" or not path.startswith(crossing))
    ]
    if not out:
        raise ValueError(
            f"modules={modules!r} was asked for, and {component!r} of {subject.name!r} has none of {', '.join(sorted(around))}; "
            "give `roles` instead"
        )
    return out


def weights_at(subject: Subject, roles: Sequence[str]) -> list[Site]:
    """The weights of the linear modules at `roles`."""
    return [
        Site(site.component, site.path, "weight") for role in roles for site in subject.sites(subject.counterpart(role))
    ]
