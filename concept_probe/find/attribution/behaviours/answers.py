"""How likely a language model's right answers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from concept_probe.families import CausalLMSubject
from concept_probe.find.attribution.behaviours.behaviour import Behaviour, Measuring, Setting
from concept_probe.find.language.knowledge import log_answers, weigh


@dataclass(frozen=True)
class LogAnswers(Behaviour):
    """log P(one of the right answers), in nats."""

    name = "answers"
    on = "texts"
    unit = "nats"
    smooth = True
    reads_only = True

    def prepared(self, setting: Setting) -> Measuring:
        _refuse_without(setting, "answers", self.name)
        model = cast(CausalLMSubject, setting.subject)
        return lambda rows: log_answers(model, [setting.queries[i].prompt for i in rows], batch=setting.sampling.batch)


@dataclass(frozen=True)
class AnswerOdds(Behaviour):
    """log of P(right answers) / P(wrong ones of the same kind): what is left of the fact where the topic is kept."""

    name = "odds"
    on = "texts"
    unit = "nats"
    smooth = True
    reads_only = True

    def prepared(self, setting: Setting) -> Measuring:
        for what in ("answers", "distractors"):
            _refuse_without(setting, what, self.name)
        model = cast(CausalLMSubject, setting.subject)
        return lambda rows: weigh(model, [setting.queries[i].prompt for i in rows], batch=setting.sampling.batch).odds


def _refuse_without(setting: Setting, what: str, behaviour: str) -> None:
    bare = next((q.prompt for q in setting.queries if not getattr(q.prompt, what)), None)
    if bare is not None:
        raise ValueError(
            f"behaviour {behaviour!r} weighs {what}, and prompt {bare.text!r} has none; give the prompts some, or use "
            "behaviour='readout'"
        )
