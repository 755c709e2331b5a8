"""The recogniser of the embedded models: names object and style of a 64 x 64 picture, or says `none`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from concept_probe.detect.recipe import is_of_recipe
from concept_probe.testbed.network import Network


@dataclass(frozen=True, eq=False)
class EmojiRecogniser:
    """One head of the network, as a `types.Recogniser`."""

    name: str
    version: str
    labels: tuple[str, ...]
    network: Network
    head: int
    """0 objects, 1 styles."""
    error: float
    """Share of held-out renderings that it names wrongly, measured when it was trained."""
    false_positives: float
    """Share of held-out garbage (noise, blends, shuffled tiles) to which it gives a name."""

    @torch.no_grad()
    def probabilities(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """images in 0..1 of any size -> probability of every label."""
        return self.logits(images).softmax(-1)

    def logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """The same before the softmax, with gradients in the images."""
        return torch.cat([self.network(part)[self.head] for part in self._parts(images)])

    @torch.no_grad()
    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """images in 0..1 of any size -> what both heads of the network read."""
        return torch.cat([self.network.body(part) for part in self._parts(images)])

    def serves(self, subject: Any) -> bool:
        """Whether the subject draws with the autoencoder and the words of the embedded models: they, and what was
        edited, erased or fine-tuned from them, whatever it is called."""
        return is_of_recipe(subject)

    def _parts(self, images: Tensor) -> tuple[Tensor, ...]:
        """As the network takes them: 64 x 64, in -1..1, 128 at a time."""
        x = images.to(next(self.network.parameters()).device, torch.float32)
        if x.shape[-2:] != (64, 64):
            x = F.interpolate(x, (64, 64), mode="area")
        return (x * 2 - 1).split(128)


def load_emoji(folder: Path, head: int) -> EmojiRecogniser:
    """Read `recogniser.json` and `recogniser.safetensors` from `folder`."""
    card = json.loads((folder / "recogniser.json").read_text())
    network = Network(len(card["objects"]), len(card["styles"]))
    network.load_state_dict({k: v.float() for k, v in load_file(folder / "recogniser.safetensors").items()})
    kind = ("objects", "styles")[head]
    return EmojiRecogniser(
        ("emoji", "emoji-style")[head],
        card["version"],
        (*card[kind], "none"),
        network.requires_grad_(False).eval(),
        head,
        card[f"{kind}_error"],
        card["false_positives"],
    )
