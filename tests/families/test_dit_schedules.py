"""A transformer and a scheduler that were made for different predictions."""

from __future__ import annotations

import pytest
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from concept_probe.families import adopt
from concept_probe.testing.models.transformers import TRANSFORMERS, tiny_flux
from concept_probe.types import Prompt, Query, Sampling

OTHERS = [
    (
        tiny_flux,
        DDIMScheduler(),
        "DDIMScheduler is made for denoisers that predict 'epsilon'.*FluxPipeline predict flows",
    ),
    (TRANSFORMERS["pixart-alpha"], FlowMatchEulerDiscreteScheduler(), "predict a flow, and nothing says that this"),
]


@pytest.mark.parametrize(("make", "scheduler", "said"), OTHERS)
def test_a_scheduler_of_another_kind_is_refused_at_the_door_and_afterwards(make, scheduler, said):
    subject = make()
    subject.pipeline.scheduler = scheduler
    with pytest.raises(ValueError, match=said):
        adopt(subject.pipeline, "other")
    with pytest.raises(ValueError, match=said):
        subject.generate([Query(Prompt("the cat"))], Sampling(steps=1, guidance=1.0))
