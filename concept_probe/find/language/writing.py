"""From a column of a down projection to what it adds to the residual stream.

Between the two a block may have a norm (Gemma 2 and 3, OLMo 2 and 3) and a factor (Granite). To first order a norm
multiplies a direction by its gain, takes the mean away where it centres, divides by the spread at the position, a
positive number, and takes away what lies along its own input. `Writing` does what is the same at every position: gain,
centring and factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.find.language.gain import NormGain, norm_gain
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

FAINT = 1e-6
"""Share of the largest gain below which a coordinate can't be written."""


@dataclass(frozen=True)
class Writing:
    """How what one down projection gives is written into the stream, up to one positive factor per position."""

    norm: NormGain | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, subject: CausalLMSubject, site: Site) -> Writing:
        """That of the down projection at `site`, of role `mlp_value`. Raises UnknownName for another."""
        write = subject.write_of(site)
        if write.norm is None:
            return cls(None, write.scale)
        return cls(norm_gain(subject.model.get_submodule(write.norm), subject.matrix(site).shape[0]), write.scale)

    @property
    def plain(self) -> bool:
        """Whether columns are written as they are."""
        return self.norm is None and self.scale == 1

    def __call__(self, columns: Tensor) -> Tensor:
        """Columns (d, m) as the stream gets them, (d, m); themselves where they are written as they are."""
        if self.plain:
            return columns
        rows = columns.mT * self.scale
        return (rows if self.norm is None else self.norm.to(rows)(rows)).mT

    def back(self, change: Tensor) -> Tensor:
        """The change of columns (d, m) that gives a change (d, m) of what the stream gets, where there is one.

        Coordinates with a gain of 0 can't be written, nor, past a norm that centres, what changes the mean.
        """
        if self.plain:
            return change
        rows = change.mT / self.scale
        if self.norm is None:
            return rows.mT
        gain = self.norm.to(rows).gain
        reached = gain.abs() > FAINT * gain.abs().max()
        rows = torch.where(reached, rows / gain.where(reached, torch.ones_like(gain)), torch.zeros_like(rows))
        return (rows - rows.mean(-1, keepdim=True) if self.norm.centres else rows).mT
