"""How often an audit looks, and what it may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from concept_probe.arguments import Count, Seconds, check_arguments
from concept_probe.evaluation.looks import errors_of_looks


@dataclass(frozen=True)
class AuditRounds:
    """Looks that are fixed beforehand, and ceilings that end an audit before the last.

    >>> plan = AuditPlan(prompts=24, rounds=AuditRounds(looks=3, pictures=600))

    Raises ValueError for less than one look or picture.
    """

    looks: Count = 3
    """The most rounds. In round k of K, what is in doubt has k/K of the plan's prompts, and of its attacks' queries."""
    pictures: Count | None = None
    """The most answers that models may be asked for, all arms and attacks together; None for as many as the plan has."""
    seconds: Seconds = math.inf
    """Wall time. A round begins only where it should end in time, judged by those before; the first one always does."""

    def __post_init__(self) -> None:
        check_arguments(self, "rounds")

    @property
    def errors(self) -> tuple[float, ...]:
        """How often the intervals of each look may miss."""
        return errors_of_looks(self.looks)
