"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): two CLIP encoders and a T5, joint blocks alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_probe.families.diffusion.dit.joint import JointSequence
from concept_probe.families.diffusion.dit.layout import shift_by_size
from concept_probe.families.diffusion.dit.subject import DitSubject, default_of, longest_text
from concept_probe.families.diffusion.schedule import StepLayout
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import Read, SequenceEncoders, StateReader
from concept_probe.families.text.spelling import Spelling
from concept_probe.types import PAD

CLIPS = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))


class StableDiffusion3Subject(DitSubject):
    """StableDiffusion3Pipeline. Its third encoder, a T5, may be missing, as in files that leave it out for its size."""

    needs = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae")
    pooled = True
    joint = JointSequence(image_first=True)

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        readers = [_clip(pipeline, *names) for names in CLIPS]
        length, has_t5 = (
            default_of(pipeline, "max_sequence_length"),
            getattr(pipeline, "text_encoder_3", None) is not None,
        )
        if has_t5:
            length = longest_text(pipeline, pipeline.tokenizer_3, unwrapped(pipeline.text_encoder_3))
            encoder = unwrapped(pipeline.text_encoder_3)
            spelling = Spelling(pipeline.tokenizer_3, length)
            readers.append(StateReader("text_encoder_3", encoder, spelling, (hidden_state(encoder, -1),)))
        width = unwrapped(pipeline.transformer).config.joint_attention_dim
        return SequenceEncoders(
            tuple(readers), partial(_joined, width=width, length=length), (0, 2) if has_t5 else (0,)
        )

    def steps(self, count: int) -> StepLayout:
        config = self.pipeline.scheduler.config
        return StepLayout(count, shift=shift_by_size(config, self.patches, most=1.16))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        return self.components[self.denoiser](
            hidden_states=latents, timestep=times, encoder_hidden_states=text.states.to(latents.dtype),
            pooled_projections=text.pooled, return_dict=False,
        )[0]  # fmt: skip


def _clip(pipeline: Any, component: str, tokenizer: str) -> StateReader:
    encoder = unwrapped(getattr(pipeline, component))
    spelling = Spelling(getattr(pipeline, tokenizer), pipeline.tokenizer_max_length)
    return StateReader(component, encoder, spelling, (hidden_state(encoder, -2),), pooled=lambda out: out[0])


def _joined(read: Sequence[Read], null: bool, *, width: int, length: int) -> Conditioning:
    """The states of both CLIPs side by side, filled up to T5's width, and T5's after them; both pooled embeddings."""
    clips, rest = read[:2], read[2:]
    states = torch.cat([one.states for one in clips], -1)
    states = F.pad(states, (0, width - states.shape[-1]))
    if rest:
        states, kinds = torch.cat([states, rest[0].states], 1), torch.cat([clips[0].kinds, rest[0].kinds], 1)
    else:  # what the pipeline gives for an encoder that it does without
        states, kinds = F.pad(states, (0, 0, 0, length)), F.pad(clips[0].kinds, (0, length), value=PAD)
    pooled = torch.cat([one.pooled for one in clips if one.pooled is not None], -1)
    return Conditioning(
        states, pooled, kinds, lengths=(clips[0].states.shape[1], states.shape[1] - clips[0].states.shape[1])
    )
