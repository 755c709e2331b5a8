"""The autoencoders that guards read a concept with, and when the denoiser's steps meet them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import Tensor

from concept_probe.activations import tap
from concept_probe.families import DiffusionSubject
from concept_probe.types import Moment, Site, SparseCoder, Subspace


def codecs_of(found: Sequence[Subspace], method: str) -> dict[Site, SparseCoder]:
    """The autoencoders that `found` was found with, one per site. ValueError for two at one."""
    out: dict[Site, SparseCoder] = {}
    for space in found:
        assert space.codec is not None
        if out.setdefault(space.site, space.codec) is not space.codec:
            raise ValueError(f"{method}: two autoencoders at {space.site}: use one at a time")
    return out


@contextlib.contextmanager
def timesteps_met(subject: DiffusionSubject, site: Site) -> Iterator[dict[int, float]]:
    """Timesteps of the denoising steps in which `site`, one of the denoiser's, is met inside."""
    seen: dict[int, float] = {}

    def clock(x: Tensor, moment: Moment) -> None:
        if moment.step is not None and moment.timestep is not None:
            seen[moment.step] = moment.timestep

    with tap(subject, {site: clock}):
        yield seen
