"""What is seen in the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.evaluation.trials import judge_answers
from concept_probe.find.attribution.behaviours.behaviour import Behaviour, Measuring, Setting
from concept_probe.types import Trial


def judged_answers(setting: Setting, value: str) -> Measuring:
    """Measures `seen` (1 where the concept's label, or a query's own of another, is seen) or `probability`."""
    looks = setting.judge
    if looks is None:
        raise ValueError(
            "what is seen in answers needs somebody who judges them, and the setting names no judge; give it one"
        )
    wanted = [q.prompt.label or setting.concept.label for q in setting.queries]

    strange = next((label for label in wanted if label not in looks.labels), None)
    if strange is not None:
        raise ValueError(
            f"recogniser {looks.name!r} has no label {strange!r}, so it would see it in no answer, whatever is taken out; name one that "
            "has, or label the prompts with what it sees"
        )

    def measure(rows: Sequence[int]) -> Tensor:
        asked = [setting.queries[i] for i in rows]
        with torch.no_grad():
            answers = setting.subject.generate(asked, setting.sampling)
        trials = judge_answers(looks, answers, asked)
        return torch.tensor([_of(trial, wanted[i], value) for i, trial in zip(rows, trials, strict=True)]).double()

    return measure


def _of(trial: Trial, wanted: str, value: str) -> float:
    if trial.seen == "error":
        return float("nan")  # refused by the game, with the coalition
    return float(trial.seen == wanted) if value == "seen" else trial.probability


@dataclass(frozen=True)
class Detection(Behaviour):
    """1 where the judge sees in the answer what the prompt asks for, else 0."""

    name = "detection"
    unit = "rate"

    def prepared(self, setting: Setting) -> Measuring:
        return judged_answers(setting, "seen")

    def judges(self) -> bool:
        return True


@dataclass(frozen=True)
class SeenProbability(Behaviour):
    """The judge's probability that the answer shows what the prompt asks for."""

    name = "probability"
    unit = "probability"

    def prepared(self, setting: Setting) -> Measuring:
        return judged_answers(setting, "probability")

    def judges(self) -> bool:
        return True
