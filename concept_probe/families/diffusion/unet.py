"""Text-to-image pipelines with a U-Net: StableDiffusionPipeline and StableDiffusionXLPipeline."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor

from concept_probe.families.diffusion.guidance import Guidance, classifier_free
from concept_probe.families.diffusion.schedule import NoiseSchedule
from concept_probe.families.diffusion.schedulers import refuse_unsaid_flow
from concept_probe.families.diffusion.sites import cross_attentions, unet_sites
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.clip import ClipEncoders
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.types import Sampling, Site


class UNetSubject(DiffusionSubject):
    """A U-Net pipeline: one or two CLIP text encoders, a U-Net with cross-attention, an autoencoder."""

    family = "unet"
    denoiser = "unet"

    def __init__(self, name: str, pipeline: Any) -> None:
        super().__init__(name, pipeline, ClipEncoders.of(pipeline), unet_sites("unet", unwrapped(pipeline.unet)))
        self._token_paths = {
            f"{p}.{key}" for p in cross_attentions(self.components[self.denoiser]) for key in ("to_k", "to_v")
        }

    @classmethod
    def adopt(cls, name: str, pipeline: Any) -> Self:
        _refuse(name, pipeline)
        subject = cls(name, pipeline)
        subject.schedule  # noqa: B018  (raises for one that is not of the U-Net's kind)
        return subject

    def axis(self, site: Site) -> Literal["token", "patch"]:
        return "token" if self.is_text(site) or site.path in self._token_paths else "patch"

    @property
    def schedule(self) -> NoiseSchedule:
        """As of every pipeline; ValueError for a scheduler of flows where nothing says that the U-Net predicts one."""
        schedule = super().schedule
        refuse_unsaid_flow(schedule, self.name, self.denoiser)
        return schedule

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of the latents of one picture."""
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @property
    def picture_size(self) -> tuple[int, int]:
        _, height, width = self.latent_shape
        return height * self.pipeline.vae_scale_factor, width * self.pipeline.vae_scale_factor

    @property
    def patches(self) -> int:
        _, height, width = self.latent_shape
        return height * width

    def guidance(self, sampling: Sampling) -> Guidance:
        return classifier_free(sampling.guidance)

    def _forward(self, latents: Tensor, timestep: Tensor, text: Conditioning) -> Tensor:
        _refuse_inputs(self.name, self.pipeline.unet.config)  # an adapter may have come since
        added = None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": self._sizes(latents)}
        states = text.states.to(latents.dtype)
        return self.components[self.denoiser](
            latents, timestep, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False
        )[0]

    def _sizes(self, latents: Tensor) -> Tensor:
        """(n, 6): original size, place of the crop and target size of each picture (arXiv 2307.01952, section 2.2)."""
        height, width = self.picture_size
        ids = torch.tensor([[height, width, 0, 0, height, width]], device=latents.device, dtype=latents.dtype)
        return ids.expand(len(latents), -1)


def _refuse(name: str, pipeline: Any) -> None:
    """Raise ValueError for a pipeline that lacks a part, or whose U-Net reads or predicts anything else than this
    family gives it."""
    for part in ("text_encoder", "unet", "vae"):
        if getattr(pipeline, part, None) is None:
            raise ValueError(
                f"{name}: the pipeline has no {part}, which this family needs (refiners have no text_encoder)"
            )
    unet, vae = pipeline.unet.config, pipeline.vae.config
    _refuse_inputs(name, unet)
    if unet.in_channels != vae.latent_channels:
        raise ValueError(
            f"{name}: the U-Net reads {unet.in_channels} channels and the autoencoder has {vae.latent_channels}: it is "
            "made for inpainting or the like, or the two belong to different models"
        )
    encoders = [e for e in (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)) if e is not None]
    width, read = sum(e.config.hidden_size for e in encoders), unet.cross_attention_dim
    if set(read if isinstance(read, list | tuple) else [read]) != {width}:
        raise ValueError(
            f"{name}: the U-Net reads a text {read} wide and the text encoders give {width}: they belong to different models"
        )
    if (unet.addition_embed_type is not None) != (len(encoders) > 1):
        raise ValueError(
            f"{name}: the U-Net reads {'a' if unet.addition_embed_type else 'no'} pooled text and the pipeline has "
            f"{len(encoders)} text encoder{'s' * (len(encoders) > 1)}: they belong to different models"
        )


def _refuse_inputs(name: str, unet: Any) -> None:
    """Raise ValueError where a U-Net, by its configuration, asks for more than latents, time and text."""
    if unet.time_cond_proj_dim is not None:
        raise ValueError(f"{name}: the U-Net reads a guidance embedding (time_cond_proj_dim), which is not supported")
    if unet.encoder_hid_dim_type is not None:
        raise ValueError(
            f"{name}: the U-Net reads pictures or another projection beside the text (encoder_hid_dim_type "
            f"{unet.encoder_hid_dim_type!r}), as with an IP-adapter, which is not supported; unload it first "
            "(pipeline.unload_ip_adapter())"
        )
    if unet.class_embed_type is not None or unet.num_class_embeds is not None:
        raise ValueError(
            f"{name}: the U-Net reads a class label (class_embed_type {unet.class_embed_type!r}, num_class_embeds "
            f"{unet.num_class_embeds!r}), which is not supported"
        )
    if unet.addition_embed_type not in (None, "text_time"):
        raise ValueError(
            f"{name}: the U-Net reads something beside the text (addition_embed_type {unet.addition_embed_type!r}), which is "
            "not supported"
        )
