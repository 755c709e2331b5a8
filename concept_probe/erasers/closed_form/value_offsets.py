"""What a text encoder's layers should write for a concept instead: offsets found by self-distillation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from concept_probe.activations import read_states
from concept_probe.activations.tap import Look, tap
from concept_probe.erasers.closed_form.alignment import TokenPolicy, align
from concept_probe.erasers.training.trainable import HookDelta, Trainable, root_mean_square
from concept_probe.families.state import with_gradients
from concept_probe.types import Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject, Subject


@dataclass(frozen=True)
class Layers:
    """The edited layers of one text encoder, from the first to the last."""

    streams: tuple[Site, ...]
    """Their outputs."""
    hidden: tuple[Site, ...]
    """Inputs of their MLPs' output matrices: the keys."""
    values: tuple[Site, ...]
    """The matrices themselves."""


def edited_layers(subject: Subject, layers: Sequence[int]) -> list[Layers]:
    """Per text encoder, the layers of these numbers; where there is none, all that what is read depends on but the last.

    ValueError for a number that no encoder has.
    """
    out = []
    roles = [subject.sites(role) for role in ("text_stream", "text_mlp_hidden", "mlp_value")]
    for end in subject.sites("text_out"):
        streams, hidden, values = ([s for s in sites if s.component == end.component] for sites in roles)
        used = streams.index(end) + 1 if end in streams else len(streams)
        chosen = list(layers) or list(range(max(used - 1, 1)))
        wrong = [i for i in chosen if not 0 <= i < used]
        if wrong:
            raise ValueError(f"emcid: layer {wrong[0]} was asked for; {end.component} has layers 0 to {used - 1}")
        places = sorted(set(chosen))
        out.append(Layers(*(tuple(sites[i] for i in places) for sites in (streams, hidden, values))))
    return out


def places_of(subject: DiffusionSubject, prompts: Sequence[Prompt], policy: TokenPolicy) -> dict[str, Tensor]:
    """By text encoder, bool (n, t): its tokens of the prompts that `policy` means."""
    out = {}
    for component, kinds in zip(subject.text.encoders, subject.tokenise(prompts).kinds_of, strict=True):
        out[component] = torch.zeros(kinds.shape, dtype=torch.bool)
        for i, row in enumerate(kinds):
            out[component][i, [place for place, _ in align(row, row, policy)]] = True
    return out


class Offsets(HookDelta, Trainable):
    """δ (n, t, d) per site, added to what the site gives for each of n prompts at chosen places."""

    def __init__(
        self, subject: Subject, sites: Sequence[Site], prompts: Sequence[Prompt], places: Mapping[str, Tensor]
    ) -> None:
        self.subject, self.prompts = subject, list(prompts)
        self.places = {site: places[site.component] for site in sites}
        self.asked: list[int] = []
        """Which prompts the encoding under way is of."""
        self.written = read_states(subject, prompts, sites)
        """What the sites give without offsets, (n, t, d)."""
        self.offsets = {
            site: nn.Parameter(torch.zeros_like(x, dtype=torch.float32), requires_grad=False)
            for site, x in self.written.items()
        }

    def groups(self, rate: float) -> list[dict[str, Any]]:
        return [{"params": [x], "lr": rate * root_mean_square(self.written[site])} for site, x in self.offsets.items()]

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        def put(site: Site) -> Look:
            def look(x: Tensor, moment: Moment) -> Tensor | None:
                if self.disabled:
                    return None
                rows = [self.asked[i] for i in moment.prompts]
                return x + (self.offsets[site][rows] * self.places[site][rows, :, None].to(x.device)).to(x)

            return look

        with (
            with_gradients(list(self.offsets.values())),
            tap(self.subject, {site: put(site) for site in self.offsets}),
        ):
            yield

    def conditions(self, rows: Sequence[int]) -> Any:
        """The subject's reading of some of the prompts, with their offsets while on."""
        self.asked = list(rows)
        return self.subject.encode([self.prompts[i] for i in rows])

    def size(self) -> Tensor:
        """Mean over sites of |δ|² / |what is written|², a scalar with gradients."""
        shares = [
            (x * self.places[site][..., None].to(x)).square().sum() / self.written[site].float().square().sum()
            for site, x in self.offsets.items()
        ]
        return torch.stack(shares).mean()

    def goals(self) -> dict[Site, Tensor]:
        """What each site should give at the chosen places (m, d), float64."""
        return {
            site: (self.written[site].double() + x.detach().double())[self.places[site].to(x.device)]
            for site, x in self.offsets.items()
        }
