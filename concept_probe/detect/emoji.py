"""The recogniser of the embedded models: names object and style of a 64 x 64 picture, or says `none`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

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
        device = next(self.network.parameters()).device
        x = images.to(device, torch.float32)
        if x.shape[-2:] != (64, 64):
            x = F.interpolate(x, (64, 64), mode="area")
        return torch.cat([self.network(part * 2 - 1)[self.head].softmax(-1) for part in x.split(128)])


def load(folder: Path, head: int) -> EmojiRecogniser:
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
