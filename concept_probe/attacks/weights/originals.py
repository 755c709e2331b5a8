"""What weights were before the erasure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from concept_probe.erasers.erasure.parameters import find_parameter

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class OriginalWeights:
    """Parameters of a model by address, `component/path:weight`."""

    hash: str
    """`weight_hash()` of the model that they are of."""
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def of(cls, subject: Subject) -> OriginalWeights:
        """Those of every component that reads the prompt or makes the answer; copies, as they are now."""
        components = dict.fromkeys(site.component for role in subject.roles() for site in subject.sites(role))
        tensors = {}
        for component in components:
            for name, parameter in subject.components[component].named_parameters():
                owner, _, leaf = name.rpartition(".")
                tensors[f"{component}/{owner}:{leaf}"] = parameter.detach().clone()
        return cls(subject.weight_hash(), tensors)


NO_EDIT = "no edit is on and no original weights are given, so nothing was taken back; a guard keeps its full strength"


def originals(subject: Subject, given: OriginalWeights | None, attack: str) -> list[tuple[nn.Parameter, Tensor]]:
    """Parameters that differ from what they were before the erasure, each with what it was.

    Raises ValueError where given weights have another shape.
    """
    if given is None:
        pairs = subject.state.originals()
    else:
        pairs = [(find_parameter(subject.components, where), x) for where, x in given.tensors.items()]
        for (parameter, x), where in zip(pairs, given.tensors, strict=True):
            if parameter.shape != x.shape:
                raise ValueError(
                    f"attack {attack!r}: the original of {where!r} is {tuple(x.shape)}, the subject's is "
                    f"{tuple(parameter.shape)}; give the weights of the model that was erased"
                )
    return [(p, x) for p, x in pairs if not torch.equal(p.detach().cpu(), x.cpu())]
