"""What a sweep asks: erasers x concepts x attacks x seeds, and how much of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from concept_probe.arguments import Natural, SeedNumber, check_arguments
from concept_probe.attacks import ATTACKS, Budget
from concept_probe.erasers import Eraser
from concept_probe.evaluation.selection import Selection
from concept_probe.registry import look_up
from concept_probe.types import Concept, Sampling

NONE = "none"
"""The cell of an eraser that is evaluated and not attacked."""
UNTOUCHED, NEVER_TAUGHT = "untouched", "never taught"
"""Names of the two controls that stand in the grid beside the erasers: no erasure, and the never-taught twin."""
CONTROLS = (UNTOUCHED, NEVER_TAUGHT)


@dataclass(frozen=True)
class MethodSetting:
    """One row of a leaderboard: an eraser with its options, under a name."""

    name: str
    eraser: Eraser
    prepare: str = "nothing"
    """What comes before the eraser, a key of `methods.PREPARATIONS`: `nothing`, or finding and choosing."""
    others: tuple[Eraser, ...] = ()
    """More settings of the method, for `chosen settings`: the best of all on the select split is taken."""
    choice: Selection | None = None
    """What is asked of a choice, and with how many answers, where something is chosen; None: `CHOICE` of the choosers."""

    @property
    def ours(self) -> bool:
        """Whether it is this project's own method."""
        return self.eraser.origin == "ours"

    @property
    def works_with_features(self) -> bool:
        """Whether what it erases with depends on autoencoders."""
        return any("features" in e.needs.found for e in (self.eraser, *self.others)) or "features" in self.prepare


@dataclass(frozen=True)
class AttackSetting:
    """One column of a leaderboard: an attack of the registry with its options, under a name."""

    name: str
    attack: str
    """Key of ATTACKS."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the attack beside recogniser, sampling and seed; values that JSON can hold."""
    budget: Budget | None = None
    """None: that of the sweep's settings."""
    holds_copy: bool = False
    """Whether the attacker holds a copy of the untouched subject, where the attack has a use for one."""

    def __post_init__(self) -> None:
        look_up(ATTACKS, self.attack, "attack", "concept-probe info attacks")
        if self.name == NONE:
            raise ValueError(f"an attack can't be called {NONE!r}: that is the cell without one")


Asking = Literal["repeated", "spread", "once"]
"""How test prompts are chosen: `repeated`, a varied choice from another place for every seed, again where there are
few; `spread`, evenly over the list, again where there are few; `once`, a varied choice, none twice, for answers that
chance has no part in."""


@dataclass(frozen=True)
class SweepSettings:
    """How much one cell may cost. Another value is another sweep: its rows are not mixed with these."""

    sampling: Sampling = Sampling()
    """How answers are made, in every cell."""
    counts: Mapping[str, int] = field(
        default_factory=lambda: {
            "target": 10, "paraphrases": 8, "implicit": 8, "neighbours": 10, "unrelated": 10,
        }
    )  # fmt: skip
    """Answers per kind of prompt in a cell without attack."""
    budget: Budget = Budget(queries=32, gradient_steps=16, examples=8)
    """Of one attack in one cell."""
    asking: Asking = "repeated"
    columns: Natural = 0
    """Of a language model: how many of the columns that the concept's answers owe most to are watched, and given to
    erasers that ask for them."""

    def __post_init__(self) -> None:
        check_arguments(self, "sweep settings")


@dataclass(frozen=True)
class Cell:
    """One thing to measure."""

    method: str
    concept: Concept
    attack: AttackSetting | None
    """None is the evaluation without attack."""
    seed: int

    @property
    def attack_name(self) -> str:
        return NONE if self.attack is None else self.attack.name


@dataclass(frozen=True)
class Grid:
    """Everything that a sweep measures."""

    concepts: tuple[Concept, ...]
    methods: tuple[MethodSetting, ...]
    attacks: tuple[AttackSetting, ...]
    seeds: tuple[SeedNumber, ...] = (0, 1, 2)
    settings: SweepSettings = SweepSettings()
    twin: bool = False
    """Whether the sweep has a never-taught twin, which then is a row of its own."""

    def __post_init__(self) -> None:
        check_arguments(self, "grid")
        for what, names in (
            ("concept", [c.name for c in self.concepts]),
            ("eraser", self.names()),
            ("attack", [a.name for a in self.attacks]),
        ):
            twice = {n for n in names if names.count(n) > 1}
            if twice:
                raise ValueError(f"a sweep needs one name per {what}; {', '.join(sorted(twice))} is there twice")
        if not self.concepts or not self.seeds:
            raise ValueError(f"a sweep needs a concept and a seed; found {len(self.concepts)} and {len(self.seeds)}")

    def names(self) -> list[str]:
        """Rows of the leaderboard: the controls, then the erasers."""
        return [UNTOUCHED, *([NEVER_TAUGHT] if self.twin else []), *(e.name for e in self.methods)]

    def method(self, name: str) -> MethodSetting:
        return look_up({e.name: e for e in self.methods}, name, "eraser of this sweep")

    def cells(self) -> Iterator[Cell]:
        """Every cell: all of the first seed before any of the next, so that a sweep cut short compares all."""
        for seed in self.seeds:
            for concept in self.concepts:
                for name in self.names():
                    for attack in (None, *self.attacks):
                        yield Cell(name, concept, attack, seed)
