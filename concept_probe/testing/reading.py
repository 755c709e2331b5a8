"""What is read of a subject to see what an erasure has changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.families import DiffusionSubject, Subject
from concept_probe.types import Moment, Prompt, Query, Sampling


def everything(subject: Subject) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, by component and name."""
    return {
        f"{component}/{name}": x.clone()
        for component, module in subject.components.items()
        for name, x in module.state_dict(keep_vars=False).items()
    }


def states_of_parameters(subject: Subject) -> list[tuple[int, bool, bool]]:
    """Of each parameter: where it lies, and whether it takes or has a gradient."""
    every = [p for module in subject.components.values() for p in module.parameters()]
    return [(p.data_ptr(), p.requires_grad, p.grad is not None) for p in every]


def hooks_on(subject: Subject) -> list[object]:
    """Hooks that hang on any module."""
    every = [m for component in subject.components.values() for m in component.modules()]
    return [hook for m in every for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


def read_first(subject: Subject, prompts: Sequence[Prompt], role: str = "cross_value") -> Tensor:
    """What the first site of a role makes of prompts, rows stacked (n, d).

    Passes that a guard asks for itself are left out. The empty prompt is read as guidance reads it.
    """
    seen = []
    guided = isinstance(subject, DiffusionSubject) and subject.guidance(Sampling(guidance=2.0)).needs_null_text
    branch, guidance = ("cond", 1.0) if any(p.text for p in prompts) or not guided else ("uncond", 2.0)
    sites = subject.sites(subject.counterpart(role))[:1]

    def look(x: Tensor, moment: Moment) -> None:
        if not moment.nested:
            seen.append(x[[i for i, own in enumerate(moment.branches) if own == branch]])

    with tap(subject, dict.fromkeys(sites, look)):
        subject.run_to(sites, [Query(p) for p in prompts], Sampling(steps=1, guidance=guidance), [0])
    return torch.cat([x.flatten(0, 1) for x in seen])
