"""How large the pictures of a subject are: as its pipeline was made for, or of another size."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from concept_probe.families.diffusion.prompted import PromptedSubject


class SizedSubject(PromptedSubject):
    """A subject whose pictures may be asked for in other sizes than its own. A subclass says its own, and its steps."""

    pipeline: Any
    _size: tuple[int, int] | None = None

    @classmethod
    @abc.abstractmethod
    def own_size(cls, pipeline: Any) -> tuple[int, int]:
        """(h, w) in pixels of the pictures that the pipeline was made for."""

    @property
    @abc.abstractmethod
    def grid(self) -> int:
        """The smallest step of a side, in pixels."""

    @property
    def cell(self) -> int:
        """How many pixels one place of the latents is wide."""
        return self.pipeline.vae_scale_factor

    @property
    @final
    def picture_size(self) -> tuple[int, int]:
        """(h, w) in pixels; may be set to another, of which `grid` pixels are the smallest step."""
        return self._size or self.own_size(self.pipeline)

    @picture_size.setter
    def picture_size(self, size: tuple[int, int]) -> None:
        height, width = size
        own = self.own_size(self.pipeline)
        if (height, width) != own and any(side < 1 or side % self.grid for side in size):
            raise ValueError(
                f"{self.name}: a picture of {height} x {width} pixels was asked for; both sides are multiples of {self.grid}"
            )
        self._size = None if (height, width) == own else (height, width)

    @contextmanager
    def sized(self, height: int, width: int) -> Iterator[None]:
        """Pictures of `height` × `width` pixels inside.

        >>> with subject.sized(512, 768):
        ...     subject.generate(queries)
        """
        before, self.picture_size = self.picture_size, (height, width)
        try:
            yield
        finally:
            self.picture_size = before

    @final
    def smallest(self, places: int = 8) -> tuple[int, int]:
        """(h, w) in pixels of about `places` places of the latents a side, and never more than now: what costs least."""
        side = -(-places * self.cell // self.grid) * self.grid
        height, width = self.picture_size
        return min(side, height), min(side, width)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w) of the latents of one picture, in places."""
        height, width = self.picture_size
        return height // self.cell, width // self.cell

    def stamp(self) -> tuple[object, ...]:
        return (*super().stamp(), self._size)

    def conventions(self) -> dict[str, Any]:
        return super().conventions() | ({} if self._size is None else {"picture_size": list(self._size)})
