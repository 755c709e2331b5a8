"""Training of the emoji recogniser: augmented icons must be named, garbage must be called `none`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from concept_probe.storage import file_sha256, write_json, write_tensors
from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.loop import FitSchedule, fit
from concept_probe.testbed.network import Network
from concept_probe.testbed.vocabulary import STYLES, objects

STEPS, BATCH = 1600, 64
GARBAGE = ("noise", "blend", "tiles", "smear", "cover")


def garbage(kind: str, x: Float[Tensor, "b 3 h w"], g: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Pictures that show nothing, or nothing whole: no name is right for them.

    `noise` drowns an icon in smooth noise, `blend` averages two, `tiles` shuffles quarters of
    quarters, `smear` blurs beyond recognition, `cover` leaves a corner.
    """
    b = len(x)
    if kind == "noise":
        coarse = torch.randn(b, 3, 8, 8, generator=g)
        return (0.15 * x + 0.8 * F.interpolate(coarse, (64, 64), mode="bicubic")).clamp(-1, 1)
    if kind == "blend":
        return (x + x[torch.randperm(b, generator=g)].flip(-1) + x[torch.randperm(b, generator=g)].flip(-2)) / 3
    if kind == "tiles":
        parts = rearrange(x, "b c (row h) (column w) -> b c (row column) h w", h=16, w=16)
        mixed = parts[:, :, torch.randperm(16, generator=g)]
        return rearrange(mixed, "b c (row column) h w -> b c (row h) (column w)", row=4)
    if kind == "smear":
        return F.interpolate(F.avg_pool2d(x, 16), (64, 64), mode="bilinear")
    out = torch.ones_like(x)
    h, w = (int(v) * 40 for v in torch.randint(2, (2,), generator=g))
    out[:, :, h : h + 24, w : w + 24] = x[:, :, h : h + 24, w : w + 24]
    return out


def draw_labelled(
    g: torch.Generator, autoencoder: Any, size: int
) -> tuple[Tensor, Int[Tensor, " b"], Int[Tensor, " b"]]:
    """A batch of pictures in -1..1 with object and style labels; a fifth is garbage, an eighth passed through the autoencoder."""
    pictures = icons()
    styles, names = pictures.shape[:2]
    rows = torch.randint(styles * names, (size,), generator=g)
    x = augment(pictures.flatten(0, 1)[rows], g, shift=0.08, scale=0.15, turn=0.2, colour=0.12)
    y, s = rows % names, rows // names
    part = size // 8
    with torch.no_grad():
        z = autoencoder.encode(x[-part:]).latent_dist.mean
        x[-part:] = autoencoder.decode(z + 0.25 * z.std() * torch.randn(z.shape, generator=g)).sample.clamp(-1, 1)
    x = x + torch.rand(size, 1, 1, 1, generator=g) * 0.15 * torch.randn(x.shape, generator=g)
    bad = size // 5
    for i, kind in enumerate(GARBAGE):
        where = slice(i * bad // len(GARBAGE), (i + 1) * bad // len(GARBAGE))
        x[where] = garbage(kind, x[where], g)
    y[:bad], s[:bad] = names, styles
    return x.clamp(-1, 1), y, s


def train_recogniser(folder: Path, autoencoder: AutoencoderKL, steps: int = STEPS) -> Network:
    torch.manual_seed(0)
    network = Network(len(objects()), len(STYLES))

    def loss(g: torch.Generator) -> Tensor:
        torch.manual_seed(int(torch.randint(2**31, (), generator=g)))  # dropout draws from the global generator
        x, y, s = draw_labelled(g, autoencoder, BATCH)
        by_object, by_style = network(x)
        return F.cross_entropy(by_object, y, label_smoothing=0.05) + 0.5 * F.cross_entropy(
            by_style, s, label_smoothing=0.05
        )

    fit("recogniser", [network], loss, FitSchedule(steps, peak=1.5e-3, seed=6), folder)
    return network.requires_grad_(False).eval()


@torch.no_grad()
def error_rates(network: Network, autoencoder: AutoencoderKL, batches: int = 16) -> dict[str, float]:
    """Error rates on renderings and garbage drawn from seeds that training never used."""
    wrong_object = wrong_style = named = good = bad = 0
    for i in range(batches):
        x, y, s = draw_labelled(torch.Generator().manual_seed(10**9 + i), autoencoder, 128)
        by_object, by_style = (head.argmax(-1) for head in network(x))
        clean = y < len(objects())
        wrong_object += int((by_object != y)[clean].sum())
        wrong_style += int((by_style != s)[clean].sum())
        named += int((by_object != y)[~clean].sum())
        good, bad = good + int(clean.sum()), bad + int((~clean).sum())
    return {"objects_error": wrong_object / good, "styles_error": wrong_style / good, "false_positives": named / bad}


def save_recogniser(network: Network, folder: Path, measured: dict[str, float]) -> None:
    """Write float16 weights and the card that says what the network can see and how often it errs."""
    tensors = {k: v.half() for k, v in network.state_dict().items()}
    write_tensors(folder / "recogniser.safetensors", tensors, {})
    version = file_sha256(folder / "recogniser.safetensors")[:12]
    card = {"version": version, "objects": [o.name for o in objects()], "styles": list(STYLES), **measured}
    write_json(folder / "recogniser.json", card)
