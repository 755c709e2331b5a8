"""Mix the erased weights with those before the erasure (model soups, arXiv 2203.05482): how far back is far enough?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from concept_probe.attacks.weights.weight_attack import WeightAttack, put_aside
from concept_probe.erasers.erasure.parameters import find_parameter

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Weights:
    """Parameters of a model by address, `component/path:weight`."""

    hash: str
    """`weight_hash()` of the model that they are of."""
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def of(cls, subject: Subject) -> Weights:
        """Those of every component that reads the prompt or makes the answer; copies, as they are now."""
        components = dict.fromkeys(site.component for role in subject.roles() for site in subject.sites(role))
        tensors = {}
        for component in components:
            for name, parameter in subject.components[component].named_parameters():
                owner, _, leaf = name.rpartition(".")
                tensors[f"{component}/{owner}:{leaf}"] = parameter.detach().clone()
        return cls(subject.weight_hash(), tensors)


@dataclass(frozen=True, eq=False)
class Merging(WeightAttack):
    """Puts a share of the difference to the original weights back into the erased ones, and asks again.

    The original weights are those that the edits which are on put aside, or `original`. A guard changes no weight: there is
    nothing to merge back, it stays on at its full strength, and the attempt's note says so.
    """

    percent: tuple[int, ...] = (25, 50)
    """Shares of the way back to the original, rising."""
    original: Weights | None = None
    """The weights before the erasure; None: those that edits have put aside."""

    name: ClassVar[str] = "merging"
    brings: ClassVar[bool] = True
    x_name: ClassVar[str] = "percent of the way back"

    def levels(self, subject: Subject) -> Sequence[int]:
        if any(not 0 < p <= 100 for p in self.percent) or list(self.percent) != sorted(self.percent):
            raise ValueError(f"attack {self.name!r}: percent is {self.percent}; give rising numbers up to 100")
        return (0, *self.percent) if self.parameters(subject) else (0,)

    def parameters(self, subject: Subject) -> list[tuple[nn.Parameter, Tensor]]:
        return originals(subject, self.original, self.name)

    def changed(self, weight: Tensor, original: Tensor, level: int) -> Tensor:
        now = weight.float()
        return (now + (original.to(now) - now) * (level / 100)).to(weight.dtype)

    def note(self, subject: Subject) -> str:
        return "" if self.parameters(subject) else NO_EDIT


NO_EDIT = "no edit is on and no original weights are given, so nothing was taken back; a guard keeps its full strength"


def originals(subject: Subject, given: Weights | None, attack: str) -> list[tuple[nn.Parameter, Tensor]]:
    """Parameters that differ from what they were before the erasure, each with what it was.

    Raises ValueError where given weights have another shape.
    """
    if given is None:
        pairs = list(put_aside(subject).values())
    else:
        pairs = [(find_parameter(subject.components, where), x) for where, x in given.tensors.items()]
        for (parameter, x), where in zip(pairs, given.tensors, strict=True):
            if parameter.shape != x.shape:
                raise ValueError(
                    f"attack {attack!r}: the original of {where!r} is {tuple(x.shape)}, the subject's is "
                    f"{tuple(parameter.shape)}; give the weights of the model that was erased"
                )
    return [(p, x) for p, x in pairs if not torch.equal(p.detach().cpu(), x.cpu())]
