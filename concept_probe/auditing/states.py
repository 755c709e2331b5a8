"""Activations of prompts in the text stream: read out of one arm, and put into another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations import read_states, read_texts
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.places import text_stream
from concept_probe.types import EOS, Moment, Prompt, Query, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

PromptStates = Mapping[Site, Sequence[Float[Tensor, "t d"]]]
"""Whole activations per site, one per prompt, without positions that only fill the batch."""


def end_states(subject: Subject, prompts: Sequence[Prompt], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "n d"]]:
    """The end token's activation at text sites, one row per prompt."""
    return read_states(subject, prompts, sites, at_end)


def at_end(x: Float[Tensor, "b t d"], moment: Moment) -> Float[Tensor, "b d"]:
    """The activation that can depend on the whole prompt, float32, on the CPU.

    At the end token; where prompts are read one token after the other (the moment has places), at the last one; the
    mean over tokens where the moment says neither.
    """
    x = x.detach().float()
    if moment.places is not None:
        return x[torch.arange(len(x), device=x.device), moment.places.argmax(-1).to(x.device)].to("cpu")
    if moment.token_kinds is None:
        return x.mean(1).to("cpu")
    weight = (moment.token_kinds.to(x.device) == EOS).to(x).unsqueeze(-1)
    return ((x * weight).sum(1) / weight.sum(1).clamp_min(1)).to("cpu")


def states_of_arm(arm: Arm, prompts: Sequence[Prompt], sites: Sequence[Site]) -> PromptStates:
    """`read_texts` of an arm, its erasure on, at those of the sites that it has."""
    own = set(text_stream(arm.subject))
    with arm.on():
        return read_texts(arm.subject, prompts, [s for s in sites if s in own])


def putting(states: PromptStates, queries: Sequence[Query]) -> dict[Site, Callable[[Tensor, Moment], Tensor | None]]:
    """Taps that replace conditional rows by `states`, which are in the order of the queries' prompts.

    What is written after a prompt is left as it comes: it depends on the prompt through what was put in.
    """

    def replace_rows(of: Sequence[Tensor]):
        def fn(x: Tensor, moment: Moment) -> Tensor | None:
            if moment.step is not None and moment.places is not None:
                return None
            new = x.clone()
            for row, (i, branch) in enumerate(zip(moment.prompts, moment.branches, strict=True)):
                if branch == "cond":
                    new[row, _of_prompt(moment, row)] = of[i].to(x)
            return new

        return fn

    return {site: replace_rows(of) for site, of in states.items()}


def identical(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether all tensors are the same to the bit."""
    return len(a) == len(b) and all(map(torch.equal, a, b))


def fit_into(states: PromptStates, whole: PromptStates, sites: Sequence[Site]) -> bool:
    """Whether `states` can be put in place of `whole` at these sites: they are there, in the same shapes."""
    return all(s in states and [x.shape for x in states[s]] == [x.shape for x in whole[s]] for s in sites)


def _of_prompt(moment: Moment, row: int) -> slice | Tensor:
    """The positions of a row that hold its prompt."""
    return slice(None) if moment.places is None else moment.places[row] >= 0
