"""How far the answer is from what the untouched model gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from concept_probe.find.attribution.behaviours.behaviour import Behaviour, Measuring, Setting


@dataclass(frozen=True)
class Divergence(Behaviour):
    """Minus the distance to the untouched answer, 0 where nothing is taken out: whatever changes, not the concept alone.

    Of pictures the mean squared difference of pixels in 0..1; of a language model KL(untouched ‖ now) of the next token.
    """

    name = "divergence"
    unit = "minus distance"

    def prepared(self, setting: Setting) -> Measuring:
        if setting.subject.answers == "texts":
            return _of_next_token(setting)
        before = setting.subject.generate(setting.queries, setting.sampling)

        def measure(rows: Sequence[int]) -> Tensor:
            now = cast(Tensor, setting.subject.generate([setting.queries[i] for i in rows], setting.sampling))
            return -(now - before[list(rows)]).double().square().flatten(1).mean(1).cpu()

        return measure


def _of_next_token(setting: Setting) -> Measuring:
    model: Any = setting.subject
    prompts = [q.prompt for q in setting.queries]
    size = setting.sampling.batch
    with torch.no_grad():
        before = model.next_logits(prompts, batch=size).double().log_softmax(-1)

    def measure(rows: Sequence[int]) -> Tensor:
        now = model.next_logits([prompts[i] for i in rows], batch=size).double().log_softmax(-1)
        was = before[list(rows)]
        return -(was.exp() * (was - now)).sum(-1).cpu()

    return measure
