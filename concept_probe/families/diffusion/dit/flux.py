"""FLUX.1: a T5 for the text, a CLIP for its pooled embedding, joint blocks and then single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from concept_probe.families.diffusion.dit.layout import even_sigmas, shift_by_size
from concept_probe.families.diffusion.dit.packing import packed, patch_places, unpacked
from concept_probe.families.diffusion.dit.subject import DitSubject, longest_text, times_as, zeros_for_rotation
from concept_probe.families.diffusion.guidance import Distilled, Guidance, classifier_free
from concept_probe.families.diffusion.schedule import StepLayout
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import Read, SequenceEncoders, StateReader
from concept_probe.families.text.spelling import Spelling
from concept_probe.types import Sampling


class FluxSubject(DitSubject):
    """FluxPipeline. A transformer that was distilled from guidance (dev) reads its weight as a number; one that was not
    (schnell, and models that learned with dropped captions) is guided by a second pass where the weight is above 1."""

    needs = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae")
    blocks = (("transformer_blocks", None), ("single_transformer_blocks", None))
    pooled = True
    packs = True

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        clip, encoder = unwrapped(pipeline.text_encoder), unwrapped(pipeline.text_encoder_2)
        words = Spelling(pipeline.tokenizer, pipeline.tokenizer_max_length)
        text = Spelling(pipeline.tokenizer_2, longest_text(pipeline, pipeline.tokenizer_2, encoder))
        pooled = StateReader(
            "text_encoder", clip, words, (hidden_state(clip, -1),), pooled=lambda out: out.pooler_output
        )
        states = StateReader("text_encoder_2", encoder, text, (hidden_state(encoder, -1),))
        return SequenceEncoders((pooled, states), _joined, (1,))

    @property
    def channels(self) -> int:
        return self.pipeline.transformer.config.in_channels // 4

    def guidance(self, sampling: Sampling) -> Guidance:
        distilled = self.pipeline.transformer.config.guidance_embeds
        return Distilled(sampling.guidance) if distilled else classifier_free(sampling.guidance)

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, even_sigmas(count), shift_by_size(self.pipeline.scheduler.config, self.patches))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        height, width = latents.shape[-2:]
        states = text.states.to(latents.dtype)
        out = self.components[self.denoiser](
            hidden_states=packed(latents), timestep=times_as(latents, times), guidance=self._weight(text),
            pooled_projections=text.pooled, encoder_hidden_states=states,
            txt_ids=zeros_for_rotation(states.shape[1], states),
            img_ids=patch_places(height // 2, width // 2, like=latents), return_dict=False,
        )[0]  # fmt: skip
        return unpacked(out, height, width)

    def _weight(self, text: Conditioning) -> Tensor | None:
        """The weight of guidance that the transformer reads, where it does; 1 where nobody asked for one."""
        if not self.pipeline.transformer.config.guidance_embeds:
            return None
        return text.states.new_ones(len(text.states)) if text.guidance is None else text.guidance


def _joined(read: Sequence[Read], null: bool) -> Conditioning:
    clip, text = read
    return Conditioning(text.states, clip.pooled, text.kinds)
