"""Z-Image (arXiv 2511.22699): a Qwen3 for the text, and blocks through which text and image pass as one sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from concept_probe.families.diffusion.dit.joint import JointSequence
from concept_probe.families.diffusion.dit.layout import even_sigmas, shift_by_size
from concept_probe.families.diffusion.dit.subject import DitSubject, default_of
from concept_probe.families.diffusion.guidance import ClassifierFree, Guidance, NoGuidance
from concept_probe.families.diffusion.schedule import StepLayout
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.frames import asked_by_user, backbone_of, chat_frame
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import SequenceEncoders, StateReader, masked_states
from concept_probe.families.text.spelling import Spelling
from concept_probe.types import Sampling


class ZImageSubject(DitSubject):
    """ZImagePipeline. Its weight of guidance counts from 0: at s a prediction is ε_c + s (ε_c - ε_∅).

    The transformer predicts from noise to picture, the other way round than its scheduler; the prediction here is the
    scheduler's.
    """

    blocks = (("context_refiner", "text"), ("noise_refiner", "image"), ("layers", "both"))
    joint = JointSequence(image_first=True, multiple=32)
    embedders = ()
    packs = True

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        encoder = unwrapped(pipeline.text_encoder)
        frame = chat_frame(pipeline.tokenizer, asked_by_user, add_generation_prompt=True, enable_thinking=True)
        length = default_of(pipeline, "max_sequence_length")
        spelling = Spelling(pipeline.tokenizer, length, "longest", frame, side="right")
        states = (hidden_state(encoder, -2),)
        reader = StateReader("text_encoder", encoder, spelling, states, masked=True, backbone=backbone_of(encoder))
        return SequenceEncoders((reader,), masked_states)

    def guidance(self, sampling: Sampling) -> Guidance:
        return ClassifierFree(sampling.guidance + 1) if sampling.guidance > 0 else NoGuidance()

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, even_sigmas(count), shift_by_size(self.pipeline.scheduler.config, self.patches))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        if text.mask is None:
            raise ValueError(f"{self.name}: a condition without a mask was given; it says where each prompt ends")
        states = text.states.to(latents.dtype)
        prompts = [row[mask] for row, mask in zip(states, text.mask, strict=True)]
        pictures = list(latents.unsqueeze(2).unbind())
        out = self.components[self.denoiser](pictures, (1000 - times) / 1000, prompts, return_dict=False)[0]
        return -torch.stack(out).squeeze(2)
