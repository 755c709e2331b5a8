"""The U-Net of an embedded model: noise prediction on cached latents of icons, given a frozen text tower."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.loop import FitSchedule, fit
from concept_probe.testbed.tokens import padded
from concept_probe.testbed.vocabulary import Caption, draw_caption, taught_pairs

BATCH, VIEWS = 48, 16
_STAGES = (("unet", 5000, 1e-3, True, 4), ("unet-fine", 3000, 7e-4, False, 5), ("unet-last", 2000, 5e-4, False, 8))
"""Name, steps, peak learning rate, whether some renderings are mirrored, seed; steps are those of a model taught everything."""
_EMPTY = 0.12
"""Share of training rows whose sentence is empty, for guidance."""
ONLY_END, HIDE_SUBJECT = 0.5, 0.25
"""Share of rows that see only the first and the end token; and of rows that see all but the subject's tokens.

The rest sees everything. So the U-Net learns to read what the text encoder computed, not the pieces
of which a name is spelled.
"""


def build_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        block_out_channels=(96, 152),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=96,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def cached_latents(autoencoder: Any, *, flip: bool) -> Float[Tensor, "view style object c h w"]:
    """Scaled latents of every icon in `VIEWS` slightly moved and resized, and perhaps mirrored, renderings."""
    pictures, g = icons(), torch.Generator().manual_seed(7)
    out = []
    for view in range(VIEWS):
        x = (
            pictures.flatten(0, 1)
            if view == 0
            else augment(pictures.flatten(0, 1), g, shift=0.04, scale=0.06, flip=flip)
        )
        z = torch.cat([autoencoder.encode(part).latent_dist.mean for part in x.split(64)])
        out.append(z.view(*pictures.shape[:2], *z.shape[1:]))
    return torch.stack(out) * autoencoder.config.scaling_factor


def visible(
    captions: list[Caption], ids: Int[Tensor, "b t"], offsets: Int[Tensor, "b t 2"], eos: int, g: torch.Generator
) -> Bool[Tensor, "b t"]:
    """Which tokens each row of a training batch may attend to."""
    b, t = ids.shape
    end = (ids == eos).int().argmax(-1)
    place = torch.arange(t)
    only_end = (place == 0) | (place == end[:, None])
    subject = subject_tokens(captions, offsets)
    chance = torch.rand(b, 1, generator=g)
    return torch.where(
        chance < ONLY_END, only_end, torch.where(chance < ONLY_END + HIDE_SUBJECT, ~subject, torch.ones_like(subject))
    )


def subject_tokens(captions: list[Caption], offsets: Int[Tensor, "b t 2"]) -> Bool[Tensor, "b t"]:
    """Which tokens spell the phrase that names the object; `offsets` are first and last character of each token."""
    subject = torch.zeros(offsets.shape[:2], dtype=torch.bool)
    for row, caption in enumerate(captions):
        if caption.phrase:
            start = caption.text.index(caption.phrase)
            inside = (offsets[row, :, 1] > start) & (offsets[row, :, 0] < start + len(caption.phrase))
            subject[row] = inside & (offsets[row, :, 1] > offsets[row, :, 0])
    return subject


def train_unet(
    folder: Path,
    name: str,
    tokenizer: Any,
    text: CLIPTextModelWithProjection,
    autoencoder: AutoencoderKL,
    pairs: list[tuple[int, int]],
) -> UNet2DConditionModel:
    """Noise prediction with weight min(snr, 5) / snr + 0.2 (2303.09556) on the taught (object, style) pairs.

    First with mirrored renderings among the views, then without: the two faces of an object that
    mirroring makes are a needless ambiguity for so small a network, and blur what it draws. The last
    stage is a warm restart that sharpens what sets the styles apart. A model that is taught less
    takes fewer steps, so that every picture is shown equally often.
    """
    model, noise_levels = build_unet(), scheduler().alphas_cumprod
    weights = (noise_levels / (1 - noise_levels)).clamp(max=5) / (noise_levels / (1 - noise_levels)) + 0.2
    nothing = Caption("", None, None, None)

    def loss(g: torch.Generator, latents: Tensor) -> Tensor:
        rows = [pairs[i] for i in torch.randint(len(pairs), (BATCH,), generator=g).tolist()]
        empty = (torch.rand(BATCH, generator=g) < _EMPTY).tolist()
        captions = [nothing if e else draw_caption(g, *row) for e, row in zip(empty, rows, strict=True)]
        # A sentence that leaves the object or the style open is true of any taught pair that fits the rest.
        view = torch.randint(VIEWS, (BATCH,), generator=g)
        objects, styles = torch.tensor(rows).T
        z = latents[view, styles, objects]
        batch = padded(tokenizer, [c.text for c in captions])
        with torch.no_grad():
            states = text(input_ids=batch.input_ids).last_hidden_state
        mask = visible(captions, batch.input_ids, batch.offset_mapping, tokenizer.eos_token_id, g)
        t = torch.randint(1000, (BATCH,), generator=g)
        noise = torch.randn(z.shape, generator=g)
        level = noise_levels[t].view(-1, 1, 1, 1)
        noisy = level.sqrt() * z + (1 - level).sqrt() * noise
        out = model(noisy, t, states, encoder_attention_mask=mask).sample
        return (weights[t].view(-1, 1, 1, 1) * (out - noise).square()).mean()

    share = len(pairs) / len(taught_pairs())
    for stage, count, peak, flip, seed in _STAGES:
        latents = cached_latents(autoencoder, flip=flip)
        fit(
            f"{name}-{stage}",
            [model],
            partial(loss, latents=latents),
            FitSchedule(round(count * share), peak, seed),
            folder,
        )
    return model.requires_grad_(False).eval()
