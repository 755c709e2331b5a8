"""What a language model's blocks should give at the subject's last token, so that something else is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from concept_probe.activations.tap import Look, tap
from concept_probe.erasers.closed_form.subject_keys import at_places
from concept_probe.erasers.unlearning.answer_sets import AnswerPair
from concept_probe.families import CausalLMSubject
from concept_probe.types import Moment, Prompt, Site


@dataclass(frozen=True)
class OffsetSearch:
    """How offsets are searched for."""

    steps: int
    rate: float
    """Adam's step, as a multiple of the root mean square of what the site gives."""
    decay: float
    """Weight of |δ|² / |h|², in the mean over sites."""
    most: float
    """Largest |δ| / |h|: after each step, a longer offset is shortened to it."""

    def run(
        self, model: CausalLMSubject, sites: Sequence[Site], pairs: Sequence[AnswerPair], places: Tensor
    ) -> tuple[dict[Site, Tensor], list[float]]:
        """δ (n, d) float64 per site, added to h at `places`, the least of -log P(o | x, h + δ) / |o| + decay |δ|² / |h|²;
        and the loss of each step."""
        begun = {site: at_places(model, site, [p for p, _ in pairs], places) for site in sites}
        squares = {site: h.float().square().sum(1) for site, h in begun.items()}
        offsets = {site: nn.Parameter(torch.zeros_like(h, dtype=torch.float32)) for site, h in begun.items()}
        groups = [
            {"params": [offsets[site]], "lr": self.rate * float(h.float().square().mean().sqrt())}
            for site, h in begun.items()
        ]
        optimiser = torch.optim.Adam(groups)
        losses: list[float] = []
        with torch.enable_grad(), tap(model, added(offsets, places)):
            for _ in range(self.steps):
                likelihood = model.log_probs(pairs, batch=len(pairs)).mean
                sizes = [(x.square().sum(1) / squares[site]).mean() for site, x in offsets.items()]
                loss = -likelihood.mean() + self.decay * torch.stack(sizes).mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    for site, x in offsets.items():
                        lengths = torch.linalg.vector_norm(x, dim=1)
                        x *= (self.most * squares[site].sqrt() / lengths.clamp_min(1e-30)).clamp_max(1)[:, None]
                losses.append(float(loss.detach()))
        return {site: x.detach().double() for site, x in offsets.items()}, losses


def added(offsets: dict[Site, Tensor] | dict[Site, nn.Parameter], places: Tensor) -> dict[Site, Look]:
    """Taps that add a row of each offset (n, d) to what its site gives at one place of each of n prompts."""

    def put(site: Site) -> Look:
        def look(x: Tensor, moment: Moment) -> Tensor:
            assert moment.places is not None  # a language model says where each token stands
            rows = torch.tensor(moment.prompts)
            here = moment.places == places[rows].to(moment.places.device)[:, None]
            return x + (offsets[site][rows][:, None] * here[..., None]).to(x)

        return look

    return {site: put(site) for site in offsets}


@torch.no_grad()
def with_offsets(
    model: CausalLMSubject, site: Site, prompts: Sequence[Prompt], places: Tensor, offsets: dict[Site, Tensor]
) -> Tensor:
    """(n, d) float64: what `site` holds at `places` while the offsets are on."""
    with tap(model, added(offsets, places)):
        return at_places(model, site, prompts, places).double()
