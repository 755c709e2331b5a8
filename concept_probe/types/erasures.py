"""What an eraser returns, as everything that only switches it on knows it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Erasure(Protocol):
    """An intervention (acts while it is on) or an edit (a change of weights)."""

    @property
    def name(self) -> str:
        """The method that made it."""
        ...

    @property
    def concept(self) -> str: ...

    @property
    def made_by(self) -> Mapping[str, Any]:
        """Method, options, what it was made from, and what was measured while it was made; values that JSON can hold."""
        ...

    def on(self, subject: Any) -> AbstractContextManager[Any]:
        """The subject with the erasure acting; every byte is as before when the block ends, also after an error."""
        ...

    def scaled(self, factor: float) -> Erasure:
        """The same erasure `factor` times as strong; 0 changes nothing."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, as values that JSON can hold."""
        ...
