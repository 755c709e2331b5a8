"""What matrices read that lie inside a diffusion transformer: the text stream as it is in front of each block.

It is another in every block, and depends on the picture so far. So states come from passes of the denoiser over latents met
on trajectories of the prompts themselves; a prompt and its destination are seen over the same latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers.closed_form.alignment import TokenPolicy, align_rows, places_meant
from concept_probe.erasers.training.replay import LatentBuffer, collect, encode_distinct
from concept_probe.types import BOS, Moment, Prompt, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Conditioning, DiffusionSubject

ON_THE_WAY = Sampling(steps=4, guidance=1.0, batch=8)
"""The trajectories whose passes are seen, one for each prompt, unguided, from the noise of seed 0 on."""


@torch.no_grad()
def paired_in_streams(
    subject: DiffusionSubject, places: Sequence[Site], prompts: Sequence[Prompt], destinations: Sequence[Prompt],
    policy: TokenPolicy,
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    """At each place, states (n, d) of the concept's tokens and those (n, d) of their destinations, float64."""
    found: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in places]
    led = dict(zip(prompts, destinations, strict=True))
    for part in _parts(collect(subject, prompts, len(prompts), ON_THE_WAY, 0)):
        own, own_states = _seen(subject, places, part, part.prompts)
        theirs, their_states = _seen(subject, places, part, [led[p] for p in part.prompts])
        for i in range(len(part)):
            pairs = align_rows(own, theirs, i, policy)
            mine, other = [a for a, _ in pairs], [b for _, b in pairs]
            for place, (target, goal) in enumerate(found):
                target.append(own_states[place][i, mine].double())
                goal.append(their_states[place][i, other].double())
    return [(torch.cat(target), torch.cat(goal)) for target, goal in found]


@torch.no_grad()
def retained_in_streams(
    subject: DiffusionSubject, places: Sequence[Site], prompts: Sequence[Prompt], policy: TokenPolicy | None = None
) -> list[Tensor]:
    """At each place, states (n, d) of the prompts' tokens that a policy means, without one of every token, float64."""
    found: list[list[Tensor]] = [[] for _ in places]
    for part in _parts(collect(subject, prompts, len(prompts), ON_THE_WAY, 0)):
        condition, states = _seen(subject, places, part, part.prompts)
        read = condition.kinds != BOS
        if condition.mask is not None:
            read = read & condition.mask
        if policy is not None:
            read = torch.zeros_like(read)
            for row in range(len(part)):
                read[row, places_meant(condition, row, policy)] = True
        for place, rows in enumerate(found):
            rows.append(states[place][read.to(states[place].device)].double())
    return [torch.cat(rows) for rows in found]


def _parts(buffer: LatentBuffer) -> list[LatentBuffer]:
    return [buffer.rows(index) for index in torch.arange(len(buffer)).split(ON_THE_WAY.batch)]


def _seen(
    subject: DiffusionSubject, places: Sequence[Site], part: LatentBuffer, prompts: Sequence[Prompt]
) -> tuple[Conditioning, list[Tensor]]:
    """The condition of prompts, and the tensor (n, t, d) at each place in one pass over the latents of `part`."""
    seen: dict[Site, Tensor] = {}

    def look(site: Site):
        def at(x: Tensor, _moment: Moment) -> None:
            seen[site] = x.detach().clone()

        return at

    condition = encode_distinct(subject, prompts)
    with tap(subject, {site: look(site) for site in places}):
        subject.predict(part.inputs, part.timesteps, condition)
    return condition, [seen[site] for site in places]
