"""What was measured of a model in one state, kept for the next audit that asks the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Measured = TypeVar("Measured")


class MeasurementCache:
    """Measurements by key: one that audits share measures the subject before and the twin once.

    A key names the state of the model, with whatever is on, and all that it was asked (`Questions.key`).
    """

    def __init__(self) -> None:
        self._measured: dict[str, object] = {}
        self.answers = 0
        """Made by models for what is kept here, as far as whoever measures counts them."""

    def get(self, key: str, measure: Callable[[], Measured]) -> Measured:
        """What is kept under `key`; what `measure` gives, which then is kept, where that is nothing."""
        if key not in self._measured:
            self._measured[key] = measure()
        return self._measured[key]  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self._measured)
