"""AuraFlow: a T5 of many languages, joint blocks and then single ones, and registers before the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from concept_probe.families.diffusion.dit.as_pipelines import one_encoder
from concept_probe.families.diffusion.dit.joint import JointSequence
from concept_probe.families.diffusion.dit.subject import DitSubject, times_as
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.sequence import Read, SequenceEncoders


class AuraFlowSubject(DitSubject):
    """AuraFlowPipeline. The states that fill a prompt up are zeros, which the transformer looks at."""

    blocks = (("joint_transformer_blocks", None), ("single_transformer_blocks", "both"))
    joint = JointSequence(registers=8)

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        return one_encoder(pipeline, _zero_where_filled)

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        return self.components[self.denoiser](
            latents, encoder_hidden_states=text.states.to(latents.dtype), timestep=times_as(latents, times),
            return_dict=False,
        )[0]  # fmt: skip


def _zero_where_filled(read: Sequence[Read], null: bool) -> Conditioning:
    text = read[0]
    return Conditioning(text.states * text.mask[..., None].to(text.states), None, text.kinds)
