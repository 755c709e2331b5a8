"""One cell with an attack: what it brings back, above its control, and what it spent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from concept_probe.attacks import ATTACKS, Attack, Attempt
from concept_probe.bench.sweep.grid import AttackSetting, SweepSettings
from concept_probe.evaluation.rates import difference_of_rates, succeeded, success_of
from concept_probe.registry import look_up
from concept_probe.types import Concept, Judge, Score

if TYPE_CHECKING:
    from concept_probe.families import Subject


def attack_suits(attack: AttackSetting, subject: Subject) -> bool:
    """Whether the attack is one on subjects that answer as this one does."""
    return ATTACKS[attack.attack].suits(subject)


def instance(attack: AttackSetting, looks: Judge, settings: SweepSettings, seed: int) -> Attack:
    """The attack, ready to be run. Raises ValueError for an option that it does not have."""
    make = look_up(ATTACKS, attack.attack, "attack", "concept-probe info attacks")
    try:
        return make(looks, settings.sampling, seed, **attack.options)
    except TypeError as error:
        raise ValueError(f"attack {attack.attack!r} was given options {dict(attack.options)}: {error}") from error


def measure_attack(
    subject: Subject,
    concept: Concept,
    asked: AttackSetting,
    settings: SweepSettings,
    looks: Judge,
    seed: int,
    copy: Subject | None = None,
) -> dict[str, Any]:
    """The values of a cell; `copy` is the untouched subject again, for an attacker who holds one.

    Raises ValueError where the attack needs examples that the concept has not.
    """
    attack = instance(asked, looks, settings, 1000 * seed)
    if asked.holds_copy:
        if copy is None:
            raise ValueError(f"attack {asked.name!r} holds a copy of the untouched subject, and the sweep has none")
        attack = attack.holding(copy)
    values = values_of(attempt := attack(subject, concept, asked.budget or settings.budget))
    if subject.answers == "texts":
        # The best point, since lessons on a few facts can also drive out the others, and an attacker would see that.
        values["hits"] = max(([int(succeeded(t)) for t in trials] for trials in attempt.trials), key=sum)
    return values


def values_of(attempt: Attempt) -> dict[str, Any]:
    """An attempt as values that JSON can hold: hits of every point, of the best one and of the control.

    An attacker stops where it works best, so the best point counts; the never-taught twin, whose row is the control
    of a leaderboard, gets its best point too. Answers to one fact count once, here and there, so that hits on texts are
    rounded to whole facts. Raises ValueError where nothing was asked.
    """
    if not attempt.trials:
        raise ValueError(f"attack {attempt.attack!r}: the budget {attempt.budget} held no answer")
    points = [_count(success_of(attempt.attack, trials)) for trials in attempt.trials]
    best = max(points, key=lambda p: p[0] / p[1])
    out: dict[str, Any] = {
        "success": best,
        "points": points,
        "curve": [[x, score.value] for x, score in attempt.curve],
        "along": attempt.x_name,
        "spent": asdict(attempt.spent),
    }
    if attempt.control is not None:
        control = _count(attempt.control)
        gain = difference_of_rates("above control", best, control)
        out |= {"control": control, "control name": attempt.control.name, "above": [gain.value, gain.low, gain.high]}
    return out


def _count(success: Score) -> list[int]:
    return [round(success.value * success.n), success.n]
