"""Qwen-Image (arXiv 2508.02324): a Qwen2.5-VL for the text, joint blocks alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from concept_probe.families.diffusion.dit.layout import even_sigmas, shift_by_size
from concept_probe.families.diffusion.dit.packing import packed, patch_lengths, unpacked
from concept_probe.families.diffusion.dit.subject import DitSubject, default_of, times_as
from concept_probe.families.diffusion.guidance import ClassifierFree, Guidance, NoGuidance
from concept_probe.families.diffusion.schedule import StepLayout
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.frames import backbone_of, framed_by, without_first
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import Read, SequenceEncoders, StateReader
from concept_probe.families.text.spelling import Spelling
from concept_probe.types import Sampling


class QwenImageSubject(DitSubject):
    """QwenImagePipeline. The weight of guidance is its `true_cfg_scale`, the negative prompt the empty one; a guided
    prediction keeps, in each patch, the length of that under the prompt."""

    embedders = ("txt_in",)
    norms_states = True
    packs = True

    @classmethod
    def refuse(cls, name: str, pipeline: Any) -> None:
        if unwrapped(pipeline.transformer).config.guidance_embeds:
            raise ValueError(
                f"{name}: the transformer reads a weight of guidance (guidance_embeds), which is not supported for "
                "QwenImagePipeline: no such model is known; load one that was not distilled from guidance"
            )

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        encoder, skipped = unwrapped(pipeline.text_encoder), pipeline.prompt_template_encode_start_idx
        spelling = Spelling(
            pipeline.tokenizer, skipped + default_of(pipeline, "max_sequence_length"), "longest",
            framed_by(pipeline.prompt_template_encode.format), side="right",
        )  # fmt: skip
        last = (hidden_state(encoder, -1),)
        reader = StateReader("text_encoder", encoder, spelling, last, masked=True, backbone=backbone_of(encoder))
        return SequenceEncoders((reader,), partial(_joined, skipped=skipped))

    @property
    def channels(self) -> int:
        return self.pipeline.transformer.config.in_channels // 4

    def guidance(self, sampling: Sampling) -> Guidance:
        guided = ClassifierFree(sampling.guidance, length=patch_lengths)
        return guided if sampling.guidance > 1 else NoGuidance()

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, even_sigmas(count), shift_by_size(self.pipeline.scheduler.config, self.patches))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        height, width = latents.shape[-2:]
        out = self.components[self.denoiser](
            hidden_states=packed(latents), timestep=times_as(latents, times),
            encoder_hidden_states=text.states.to(latents.dtype), encoder_hidden_states_mask=text.mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(latents), return_dict=False,
        )[0]  # fmt: skip
        return unpacked(out, height, width)


def _joined(read: Sequence[Read], null: bool, *, skipped: int) -> Conditioning:
    """The states behind the first tokens of the frame, which tell the encoder what to do."""
    text = without_first(read[0], skipped)
    return Conditioning(text.states, None, text.kinds, mask=text.mask)
