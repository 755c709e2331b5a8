"""How strongly patches attend to tokens, computed from the queries and keys that pass by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.activations.tap import Look, tap
from concept_probe.types import Moment, Site

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject


@contextlib.contextmanager
def attention(subject: DiffusionSubject) -> Iterator[list[Tensor]]:
    """A list to which every pass of the denoiser adds its attention to text, layer by layer, with gradients.

    Each entry is (b, heads, patches, t): softmax(q kᵀ scale) of one cross-attention. ValueError for a
    subject whose attention is joint.
    """
    if "cross_query" not in subject.roles():
        raise ValueError(
            f"{subject.name}: this takes attention from the image to a text that stays as it is, and in a joint attention text "
            "and image attend to each other"
        )
    maps: list[Tensor] = []
    looks: dict[Site, Look] = {}
    for query, key in zip(subject.sites("cross_query"), subject.sites("cross_key"), strict=True):
        module = subject.components[key.component].get_submodule(key.path.rpartition(".")[0])
        of_layer: list[Tensor] = []
        looks[query] = _keeper(of_layer)
        if getattr(module, "norm_q", None) is not None:
            raise ValueError(
                f"{subject.name}: {type(module).__name__} at {key.component!r} norms its queries, so its attention is not told by "
                "what passes at them"
            )
        looks[key] = _reader(of_layer, maps, module, subject)
    with tap(subject, looks):
        yield maps


def _keeper(of_layer: list[Tensor]) -> Look:
    def look(x: Tensor, moment: Moment) -> None:
        of_layer[:] = [x]

    return look


def _reader(of_layer: list[Tensor], maps: list[Tensor], module: Any, subject: DiffusionSubject) -> Look:
    def look(x: Tensor, moment: Moment) -> None:
        q, k = (y.unflatten(-1, (module.heads, -1)).transpose(1, 2) for y in (of_layer.pop(), x))
        compared, seen = q @ k.mT * module.scale, subject.condition.mask
        if seen is not None:
            compared = compared.masked_fill(~seen.to(x.device)[:, None, None, :], -torch.inf)
        maps.append(compared.softmax(-1))

    return look
