"""Where the text's reading stands between the concept and the rest, before anything is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.find.attribution.behaviours.behaviour import Behaviour, Measuring, Setting
from concept_probe.types import EOS, FORGET_KINDS, OTHER_KINDS, Kind, Moment, Prompt, Site, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject

MOST_FITTED = 64
"""Prompts of each side that the direction is fitted on."""


@dataclass(frozen=True)
class EndReadout(Behaviour):
    """Where the end token's state stands on the line from other prompts' mean (0) to the concept's (1), in the fit split.

    At what the text encoders hand on (`text_out`), the mean over them; of a language model after its final norm, at the
    last token. No answer is made, so it costs a reading of the prompt.
    """

    name = "readout"
    unit = "distance of the means"
    smooth = True
    reads_only = True

    def prepared(self, setting: Setting) -> Measuring:
        subject, sites = setting.subject, setting.subject.sites("text_out")
        lines = {}
        with torch.no_grad():
            own, others = (ends(subject, _fitted(setting, kinds), sites) for kinds in (FORGET_KINDS, OTHER_KINDS))
        for site in sites:
            start, whole = others[site].double().mean(0), own[site].double().mean(0)
            gap = whole - start
            if not bool(gap.square().sum() > 0):
                raise ValueError(
                    f"behaviour 'readout': {site} reads the prompts of {setting.concept.name!r} as it reads others, so there "
                    "is no line between them; use behaviour='detection'"
                )
            lines[site] = (start, gap / gap.square().sum())

        def measure(rows: Sequence[int]) -> Tensor:
            states = ends(subject, [setting.queries[i].prompt for i in rows], sites)
            return torch.stack([along(states[site].double(), *lines[site]) for site in sites]).mean(0)

        return measure


def along(x: Tensor, start: Tensor, slope: Tensor) -> Tensor:
    """(n,): how far x (n, d) is from `start` (d,) along `slope` (d,)."""
    return (x - start.to(x)) @ slope.to(x)


def _fitted(setting: Setting, kinds: Sequence[Kind]) -> list[Prompt]:
    found = [p for kind in kinds for p in setting.concept.prompts(kind, "fit")]
    if not found:
        raise ValueError(
            f"behaviour 'readout' draws a line between prompts of {setting.concept.name!r} and others in split 'fit', and there "
            f"are none in {', '.join(kinds)}; give it some, or use another behaviour"
        )
    return list(evenly(found, MOST_FITTED))


def ends(subject: Subject, prompts: Sequence[Prompt], sites: Sequence[Site]) -> dict[Site, Tensor]:
    """(n, d) at each site: the state of each prompt's end token, or of its last where it has no such mark. In the graph."""
    found: dict[Site, dict[int, Tensor]] = {site: {} for site in sites}

    def look(site: Site):
        def fn(x: Tensor, moment: Moment) -> None:
            rows = torch.arange(len(x), device=x.device)
            picked = x[rows, _end(x, moment).to(x.device)]
            for number, branch, row in zip(moment.prompts, moment.branches, picked, strict=True):
                if branch == "cond":
                    found[site][number] = row

        return fn

    with tap(subject, {site: look(site) for site in sites}):
        subject.encode(prompts)
    return {site: torch.stack([of[i] for i in _numbers(of, prompts)]) for site, of in found.items()}


def _numbers(of: dict[int, Tensor], prompts: Sequence[Prompt]) -> list[int]:
    """The row of each prompt: equal ones may share the first one's."""
    first: dict[Prompt, int] = {}
    for i, prompt in enumerate(prompts):
        first.setdefault(prompt, i)
    return [i if i in of else first[prompt] for i, prompt in enumerate(prompts)]


def _end(x: Tensor, moment: Moment) -> Tensor:
    """(b,) place of the end token in each row."""
    if moment.places is not None:
        return moment.places.argmax(-1)
    if moment.token_kinds is not None and bool((moment.token_kinds == EOS).any(1).all()):
        return (moment.token_kinds == EOS).int().argmax(-1)
    return torch.full((len(x),), x.shape[1] - 1)
