"""Lumina-Image 2.0 (arXiv 2503.21758): a Gemma for the text, and blocks through which text and image pass as one sequence."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from concept_probe.families.diffusion.dit.joint import JointSequence
from concept_probe.families.diffusion.dit.layout import even_sigmas, shift_by_size
from concept_probe.families.diffusion.dit.subject import DitSubject, default_of
from concept_probe.families.diffusion.guidance import ClassifierFree, Guidance, NoGuidance
from concept_probe.families.diffusion.schedule import StepLayout
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.frames import backbone_of, framed_by
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import SequenceEncoders, StateReader, masked_states
from concept_probe.families.text.spelling import Spelling
from concept_probe.types import Sampling

BETWEEN = " <Prompt Start> "
"""What stands between the pipeline's `system_prompt` and a prompt."""


class Lumina2Subject(DitSubject):
    """Lumina2Pipeline. A guided prediction keeps, in each row of each channel, the length of that under the prompt; the
    empty prompt of guidance stands without the system's.

    The transformer predicts from noise to picture, the other way round than its scheduler; the prediction here is the
    scheduler's. Where the scheduler's shift depends on the picture's size, the pipeline gives it the number of channels.
    """

    blocks = (("context_refiner", "text"), ("noise_refiner", "image"), ("layers", "both"))
    joint = JointSequence(close=True)
    embedders = ("time_caption_embed.caption_embedder",)

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        encoder, length = unwrapped(pipeline.text_encoder), default_of(pipeline, "max_sequence_length")
        spelling = partial(Spelling, pipeline.tokenizer, length, side="right")
        frame = framed_by((pipeline.system_prompt + BETWEEN).__add__)
        reader = StateReader(
            "text_encoder", encoder, spelling(frame=frame), (hidden_state(encoder, -2),), masked=True,
            without=spelling(), backbone=backbone_of(encoder),
        )  # fmt: skip
        return SequenceEncoders((reader,), masked_states)

    def guidance(self, sampling: Sampling) -> Guidance:
        guided = ClassifierFree(sampling.guidance, length=_row_lengths)
        return guided if sampling.guidance > 1 else NoGuidance()

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, even_sigmas(count), shift_by_size(self.pipeline.scheduler.config, self.channels))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        out = self.components[self.denoiser](
            hidden_states=latents, timestep=1 - times / self.schedule.train_timesteps,
            encoder_hidden_states=text.states.to(latents.dtype), encoder_attention_mask=text.mask, return_dict=False,
        )[0]  # fmt: skip
        return -out


def _row_lengths(x: Tensor) -> Tensor:
    return x.norm(dim=-1, keepdim=True)
