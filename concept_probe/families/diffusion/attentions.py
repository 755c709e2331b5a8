"""Where the attentions of a denoiser are, and what looks at what in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from concept_probe.types import Site

AttentionKind = Literal["cross", "joint", "self", "linear"]
"""The image looks at a text beside it (`cross`); text and image look at each other as one sequence (`joint`); the image
looks at itself (`self`); or a sum over the image is read by each patch, with no weight for a pair of them (`linear`)."""


@dataclass(frozen=True)
class AttentionLayer:
    """One attention of a denoiser."""

    site: Site
    """What goes into its module."""
    kind: AttentionKind
    out: Site
    """The weight that brings what its heads read back to the image stream. The heads' numbers are its first inputs, head by
    head; an MLP's may follow."""

    @property
    def name(self) -> str:
        """The path of its module in the denoiser."""
        return self.site.path
