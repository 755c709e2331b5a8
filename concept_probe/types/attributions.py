"""How much of what a model does is owed to each of its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from concept_probe.types.evidence import Score
from concept_probe.types.prompts import Split
from concept_probe.types.reports import Curve


@dataclass(frozen=True)
class Attribution:
    """What a behaviour owes to each player, by taking players out."""

    concept: str
    subject: str
    """Name of the model."""
    scores: tuple[Score, ...]
    """One for each player, named as it, in the order in which they were given; `control` is the matched random player's."""
    controls: tuple[Score, ...]
    """Of the matched random players, played among themselves; empty where none were asked for."""
    whole: Score
    """The behaviour with every player there."""
    none: Score
    """The behaviour with every player taken out."""
    gap: float | None
    """What the scores add up to, less `whole - none`; None where a summary promises no such sum."""
    deletion: Curve | None
    """The behaviour on other prompts, with the best players taken out, one after the other; control: in random orders."""
    insertion: Curve | None
    """The same with all taken out and the best put back."""
    removal: str
    behaviour: str
    summary: str
    split: Split
    """Whose prompts the players were scored on."""
    answers: int
    """How many the model gave for this, readings of a prompt among them."""
    deletion_area: Score | None = None
    """Mean of the deletion curve over players taken out; low where few players carry the behaviour and were ranked first."""
    insertion_area: Score | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Options of removal, behaviour and summary, as values that JSON can hold."""

    @property
    def players(self) -> tuple[str, ...]:
        return tuple(score.name for score in self.scores)

    def order(self) -> tuple[int, ...]:
        """The players, most first."""
        return tuple(sorted(range(len(self.scores)), key=lambda i: -self.scores[i].value))

    def share(self, player: str) -> float:
        """A player's score as a share of the sum of all; NaN where that is 0. Raises ValueError for an unknown player."""
        total = math.fsum(score.value for score in self.scores)
        return self.scores[self.players.index(player)].value / total if total else math.nan
