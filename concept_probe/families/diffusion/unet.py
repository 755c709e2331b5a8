"""Pipelines with a U-Net: Stable Diffusion 1, 2 and XL, in the classes that draw, paint in, refine or take few steps."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, Self

import torch
from torch import Tensor

from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.diffusion.flow import refuse_unsaid_flow
from concept_probe.families.diffusion.guidance import Distilled, Guidance, classifier_free
from concept_probe.families.diffusion.schedule import NoiseSchedule
from concept_probe.families.diffusion.sites import cross_attentions, unet_attentions, unet_sites
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.diffusion.unet_inputs import guidance_embedding, painted_in, score_ids, size_ids
from concept_probe.families.diffusion.unet_refused import paints_in, refuse_inputs, refuse_pipeline, refuse_skip
from concept_probe.families.parts import unwrapped
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.clip import ClipEncoders
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.types import Sampling, Site


class UNetSubject(DiffusionSubject):
    """A U-Net pipeline: one or two CLIP text encoders, a U-Net with cross-attention, an autoencoder.

    Whatever the class of its pipeline, it draws a picture from a prompt and noise alone. A U-Net made for inpainting is
    given a mask that covers everything and an empty (mid-grey) picture under it; a refiner is asked for a whole picture.
    """

    family = "unet"
    denoiser = "unet"

    def __init__(self, name: str, pipeline: Any, clip_skip: int = 0) -> None:
        text = ClipEncoders.of(pipeline, clip_skip)
        super().__init__(name, pipeline, text, unet_sites("unet", unwrapped(pipeline.unet)))
        self.clip_skip = clip_skip
        """How many layers of the text encoders are left out at the end, more than usual."""
        self._token_paths = {
            f"{p}.{key}" for p in cross_attentions(self.components[self.denoiser]) for key in ("to_k", "to_v")
        }
        self._empty_pictures: dict[tuple[int, int], Tensor] = {}

    @classmethod
    def adopt(cls, name: str, pipeline: Any, *, clip_skip: int = 0) -> Self:
        refuse_pipeline(name, pipeline)
        refuse_skip(name, pipeline, clip_skip)
        subject = cls(name, pipeline, clip_skip)
        subject.schedule  # noqa: B018  (raises for one that is not of the U-Net's kind)
        _say(name, pipeline)
        return subject

    def axis(self, site: Site) -> Literal["token", "patch"]:
        return "token" if self.is_text(site) or site.path in self._token_paths else "patch"

    def attentions(self) -> tuple[AttentionLayer, ...]:
        return unet_attentions(self.denoiser, self.components[self.denoiser])

    def conventions(self) -> dict[str, Any]:
        return super().conventions() | ({"clip_skip": self.clip_skip} if self.clip_skip else {})

    @property
    def schedule(self) -> NoiseSchedule:
        """As of every pipeline; ValueError for a scheduler of flows where nothing says that the U-Net predicts one."""
        schedule = super().schedule
        refuse_unsaid_flow(schedule, self.name, self.denoiser)
        return schedule

    def state_readers(self) -> tuple[Site, ...]:
        return (*self.sites("cross_key_weight"), *self.sites("cross_value_weight"))

    @classmethod
    def own_size(cls, pipeline: Any) -> tuple[int, int]:
        size = pipeline.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor

    @property
    def grid(self) -> int:
        """As the pipelines have it: whole places of the latents, and multiples of eight pixels."""
        return math.lcm(self.cell, 8)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of the latents of one picture."""
        return self.pipeline.vae.config.latent_channels, *self.latent_size

    def guidance(self, sampling: Sampling) -> Guidance:
        if self.pipeline.unet.config.time_cond_proj_dim is not None:
            return Distilled(sampling.guidance - 1)
        return classifier_free(sampling.guidance)

    def check_by_running(self) -> None:
        if paints_in(self.pipeline):
            self._uncovered()

    def seen_latents(self, x: Tensor) -> Tensor:
        return x[:, : self.latent_shape[0]]

    def _forward(self, latents: Tensor, timestep: Tensor, text: Conditioning) -> Tensor:
        config = self.pipeline.unet.config
        refuse_inputs(self.name, config)  # an adapter may have come since
        added = None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": self._sizes(latents)}
        seen = painted_in(latents, self._uncovered()) if paints_in(self.pipeline) else latents
        return self.components[self.denoiser](
            seen,
            timestep,
            encoder_hidden_states=text.states.to(latents.dtype),
            timestep_cond=self._weight(text, latents, config.time_cond_proj_dim),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    def _weight(self, text: Conditioning, latents: Tensor, width: int | None) -> Tensor | None:
        """The embedding (n, width) of the weight of guidance, for a U-Net that reads one; a condition that says none is
        read at the weight that pictures are drawn with unless another is asked for."""
        if width is None:
            return None
        w = text.guidance
        if w is None:
            w = torch.full((len(latents),), SAMPLING.guidance - 1, device=latents.device)
        return guidance_embedding(w, width).to(latents)

    def _sizes(self, latents: Tensor) -> Tensor:
        if self.pipeline.config.get("requires_aesthetics_score", False):
            return score_ids(self.picture_size, latents, self.moment.branches)
        return size_ids(self.picture_size, latents)

    @torch.no_grad()
    def _uncovered(self) -> Tensor:
        """(1, c, h, w): the latents of a mid-grey picture, which is what a mask over everything leaves of one. Kept for each
        size from the first time on."""
        size = self.picture_size
        if size not in self._empty_pictures:
            with self.pristine():
                self._empty_pictures[size] = self.latents(torch.full((1, 3, *size), 0.5, device=self.device))
        return self._empty_pictures[size]


def _say(name: str, pipeline: Any) -> None:
    """Warn where a picture from a prompt alone is not what the pipeline is for."""
    kind = type(pipeline).__name__
    if paints_in(pipeline):
        said = (
            "paints in, and is asked for pictures from a prompt alone: its mask covers everything, over a grey picture"
        )
    elif getattr(pipeline, "text_encoder", None) is None:
        said = (
            "has no text_encoder beside text_encoder_2, as a refiner has not: it was trained to finish pictures, and is "
            "asked here for whole ones, from noise; judge its pictures with care, or give the base model"
        )
    elif hasattr(pipeline, "get_timesteps"):  # it starts from pictures that it is given
        said = "holds a text-to-image model and is asked as one: from noise alone, without a picture to start from"
    else:
        return
    warnings.warn(f"{name}: {kind} {said}", stacklevel=4)
