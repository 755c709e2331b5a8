"""Sana (arXiv 2410.10629): a Gemma for the text, blocks of one stream with linear attention, an autoencoder of few places."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from concept_probe.families.diffusion.dit.as_pipelines import cleaning, without_variance
from concept_probe.families.diffusion.dit.subject import DitSubject, default_of
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.frames import backbone_of, framed_by
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import Read, SequenceEncoders, StateReader, masked_states
from concept_probe.families.text.spelling import Spelling


class SanaSubject(DitSubject):
    """SanaPipeline. A prompt stands behind an instruction to the encoder, of which the first and the last state are read
    beside the prompt's own; the empty prompt of guidance stands alone."""

    embedders = ("caption_projection",)

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        encoder, length = unwrapped(pipeline.text_encoder), default_of(pipeline, "max_sequence_length")
        asks = "\n".join(default_of(pipeline, "complex_human_instruction"))
        spelling = partial(Spelling, pipeline.tokenizer, clean=cleaning(pipeline), side="right")
        before = len(pipeline.tokenizer.encode(asks))
        reader = StateReader(
            "text_encoder", encoder, spelling(length=before + length - 2, frame=framed_by(asks.__add__)),
            (hidden_state(encoder, -1),), masked=True, without=spelling(length=length), backbone=backbone_of(encoder),
        )  # fmt: skip
        return SequenceEncoders((reader,), partial(_first_and_last, length=length))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        transformer: Any = self.components[self.denoiser]
        out = transformer(
            latents, encoder_hidden_states=text.states.to(latents.dtype), encoder_attention_mask=text.mask,
            timestep=times * transformer.config.timestep_scale, return_dict=False,
        )[0]  # fmt: skip
        return without_variance(out, latents)


def _first_and_last(read: Sequence[Read], null: bool, *, length: int) -> Conditioning:
    """The first state and the last `length` - 1."""
    whole = masked_states(read, null)
    count = whole.states.shape[1]
    kept = torch.tensor([0, *range(count - length + 1, count)], device=whole.states.device)
    mask = None if whole.mask is None else whole.mask[:, kept]
    return Conditioning(whole.states[:, kept], None, whole.kinds[:, kept], mask=mask)
