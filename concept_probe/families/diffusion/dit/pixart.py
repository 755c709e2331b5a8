"""PixArt-α (arXiv 2310.00426) and PixArt-Σ (arXiv 2403.04692): a T5 that the image attends to, in blocks of one stream."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from concept_probe.families.diffusion.dit.as_pipelines import cleaning, one_encoder, without_variance
from concept_probe.families.diffusion.dit.subject import DitSubject
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.sequence import SequenceEncoders, masked_states

MICRO_CONDITIONED = 128
"""The `sample_size` of models of PixArt-α that are told the size and aspect ratio of the picture."""


class PixArtSigmaSubject(DitSubject):
    """PixArtSigmaPipeline. Texts are cleaned as it cleans them: of links and signs too where the packages bs4 and ftfy are
    installed, else made lower-case alone. The transformer predicts a variance beside the noise, which is cut off."""

    embedders = ("caption_projection",)
    flows = False

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        return one_encoder(pipeline, masked_states, clean=cleaning(pipeline))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        out = self.components[self.denoiser](
            latents, encoder_hidden_states=text.states.to(latents.dtype), timestep=times,
            added_cond_kwargs=self._micro_conditions(latents), encoder_attention_mask=text.mask, return_dict=False,
        )[0]  # fmt: skip
        return without_variance(out, latents)

    def _micro_conditions(self, latents: Tensor) -> dict[str, Tensor | None]:
        return {"resolution": None, "aspect_ratio": None}


class PixArtAlphaSubject(PixArtSigmaSubject):
    """PixArtAlphaPipeline. Models for pictures of 1024 pixels read the picture's size and aspect ratio too."""

    def _micro_conditions(self, latents: Tensor) -> dict[str, Tensor | None]:
        if self.pipeline.transformer.config.sample_size != MICRO_CONDITIONED:
            return super()._micro_conditions(latents)
        height, width = (side * self.cell for side in latents.shape[-2:])
        size = latents.new_tensor([[height, width]]).expand(len(latents), 2)
        return {"resolution": size, "aspect_ratio": latents.new_tensor([[height / width]]).expand(len(latents), 1)}
