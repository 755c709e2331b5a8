"""Places that every diffusion transformer has, whatever its build: what goes into a pass and what comes out of it.

A transformer may get its latents packed, cut up in lists, or with the text in one sequence, and some make their prediction
at no module of their own. Here the same four tensors pass in the same shapes for all, so that taps find them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from concept_probe.families.text.conditioning import Conditioning
from concept_probe.types import Site

PORTS = "denoiser"


class Port(nn.Module):
    """A tensor that passes."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Ports(nn.Module):
    """The four places, in the order in which a pass meets them."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = Port()
        """(n, c, h, w), as the pipeline's autoencoder has them"""
        self.text = Port()
        """(n, t, d), the states that the transformer reads"""
        self.pooled = Port()
        """(n, d), the pooled text, where the transformer reads one"""
        self.prediction = Port()
        """(n, c, h, w)"""

    def forward(self, run: Callable[[Tensor, Conditioning], Tensor], latents: Tensor, text: Conditioning) -> Tensor:
        latents = self.latents(latents)
        states = self.text(text.states)
        pooled = None if text.pooled is None else self.pooled(text.pooled)
        return self.prediction(run(latents, replace(text, states=states, pooled=pooled)))

    def sites(self, *, pooled: bool) -> dict[str, tuple[Site, ...]]:
        """Roles to sites; `pooled` says whether the transformer reads a pooled text."""
        more = {"text_pooled": (Site(PORTS, "pooled"),)} if pooled else {}
        return {
            "denoiser_in": (Site(PORTS, "latents"),),
            "denoiser_text": (Site(PORTS, "text"),),
            "denoiser_out": (Site(PORTS, "prediction"),),
            **more,
        }


_OF_TRANSFORMERS: WeakKeyDictionary[nn.Module, Ports] = WeakKeyDictionary()


def ports_of(transformer: nn.Module) -> Ports:
    """The ports of a transformer: subjects around the same one share them, since what is on in one is on in all."""
    return _OF_TRANSFORMERS.setdefault(transformer, Ports())
