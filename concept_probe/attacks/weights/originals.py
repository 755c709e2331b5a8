"""What weights were before the erasure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from concept_probe.erasers.erasure.parameters import find_parameter
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
    """Parameters that differ from what they were before the erasure, each with what it was: those of edits come first.

    What is given goes before what edits have put aside. Raises ValueError where it has another shape.
    """
    before = {id(p): (p, x) for p, x in subject.state.originals()}
    for where, x in ({} if given is None else given.tensors).items():
        parameter = find_parameter(subject.components, where)
        if parameter.shape != x.shape:
            raise ValueError(
                f"attack {attack!r}: the original of {where!r} is {tuple(x.shape)}, the subject's is "
                f"{tuple(parameter.shape)}; give the weights of the model that was erased"
            )
        before[id(parameter)] = (parameter, x)
    return [(p, x) for p, x in before.values() if not torch.equal(p.detach().cpu(), x.cpu())]
