"""Chroma: FLUX's blocks, a T5 for the text, no pooled text, and no weight of guidance that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from concept_probe.families.diffusion.dit.as_pipelines import one_encoder
from concept_probe.families.diffusion.dit.layout import even_sigmas, shift_by_size
from concept_probe.families.diffusion.dit.packing import packed, patch_places, unpacked
from concept_probe.families.diffusion.dit.subject import DitSubject, times_as, zeros_for_rotation
from concept_probe.families.diffusion.schedule import StepLayout
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.sequence import Read, SequenceEncoders


class ChromaSubject(DitSubject):
    """ChromaPipeline. Of what fills a prompt up its transformer looks at the first state; the others it sees as its
    pipeline has it: with a mask of ones and zeros that is added to what attention compares, and hides nothing whole."""

    blocks = (("transformer_blocks", None), ("single_transformer_blocks", "both"))
    packs = True

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        return one_encoder(pipeline, _with_first_pad)

    @property
    def channels(self) -> int:
        return self.pipeline.transformer.config.in_channels // 4

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, even_sigmas(count), shift_by_size(self.pipeline.scheduler.config, self.patches))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        height, width = latents.shape[-2:]
        states, patches = text.states.to(latents.dtype), packed(latents)
        mask = None
        if text.mask is not None:
            mask = torch.cat([text.mask.to(states), states.new_ones(patches.shape[:2])], 1)
        out = self.components[self.denoiser](
            hidden_states=patches, timestep=times_as(latents, times), encoder_hidden_states=states,
            txt_ids=zeros_for_rotation(states.shape[1], states),
            img_ids=patch_places(height // 2, width // 2, like=latents), attention_mask=mask, return_dict=False,
        )[0]  # fmt: skip
        return unpacked(out, height, width)


def _with_first_pad(read: Sequence[Read], null: bool) -> Conditioning:
    text = read[0]
    places = torch.arange(text.mask.shape[1], device=text.mask.device)
    return Conditioning(text.states, None, text.kinds, mask=places <= text.mask.sum(1, keepdim=True))
