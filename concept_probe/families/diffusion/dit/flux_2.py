"""FLUX.2: hidden states of a language model for the text, joint blocks and then single ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from concept_probe.families.diffusion.dit.layout import even_sigmas, shift_by_size_and_steps
from concept_probe.families.diffusion.dit.subject import DitSubject, default_of, times_as
from concept_probe.families.diffusion.guidance import Distilled, Guidance, NoGuidance, classifier_free
from concept_probe.families.diffusion.schedule import StepLayout
from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.frames import asked_by_user, backbone_of, chat_frame
from concept_probe.families.text.layers import hidden_state
from concept_probe.families.text.sequence import SequenceEncoders, StateReader, states_alone
from concept_probe.families.text.spelling import Spelling
from concept_probe.types import Sampling


class Flux2KleinSubject(DitSubject):
    """Flux2KleinPipeline, whose text is read by a Qwen3. One that was distilled to few steps (`is_distilled`) takes no
    guidance; another is guided by a second pass where the weight is above 1.

    A place of the latents is what the autoencoder has in 2 x 2 places, so a patch is one place.
    """

    blocks = (("transformer_blocks", None), ("single_transformer_blocks", "both"))

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        frame = chat_frame(pipeline.tokenizer, asked_by_user, add_generation_prompt=True, enable_thinking=False)
        spelling = Spelling(pipeline.tokenizer, default_of(pipeline, "max_sequence_length"), frame=frame)
        return SequenceEncoders((layers_read(pipeline, spelling),), states_alone)

    @property
    def cell(self) -> int:
        return 2 * self.pipeline.vae_scale_factor

    def guidance(self, sampling: Sampling) -> Guidance:
        return NoGuidance() if self.pipeline.config.is_distilled else classifier_free(sampling.guidance)

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, even_sigmas(count), shift_by_size_and_steps(self.patches, count))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        return flux_2_prediction(self.components[self.denoiser], latents, times, text)


class Flux2Subject(DitSubject):
    """Flux2Pipeline, whose text is read by a Mistral 3 behind the pipeline's `system_message`, and whose weight of guidance
    is a number that the transformer reads. A place of the latents is as in Flux2KleinSubject."""

    blocks = (("transformer_blocks", None), ("single_transformer_blocks", "both"))

    @classmethod
    def read_text(cls, pipeline: Any) -> SequenceEncoders:
        processor = pipeline.tokenizer
        words = processor.tokenizer

        def messages(text: str) -> list[dict[str, Any]]:
            told = (("system", pipeline.system_message), ("user", text))
            return [{"role": role, "content": [{"type": "text", "text": said}]} for role, said in told]

        frame = chat_frame(processor, messages, add_generation_prompt=False)
        begun = words.bos_token is not None and frame("").text.startswith(words.bos_token)
        spelling = Spelling(
            words, default_of(pipeline, "max_sequence_length"), frame=frame, clean=_without_marks, begun=begun
        )
        return SequenceEncoders((layers_read(pipeline, spelling),), states_alone)

    @property
    def cell(self) -> int:
        return 2 * self.pipeline.vae_scale_factor

    def conventions(self) -> dict[str, Any]:
        return super().conventions() | {"chat": self.pipeline.tokenizer.chat_template}

    def guidance(self, sampling: Sampling) -> Guidance:
        return Distilled(sampling.guidance)

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count, even_sigmas(count), shift_by_size_and_steps(self.patches, count))

    def _run(self, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
        return flux_2_prediction(self.components[self.denoiser], latents, times, text)


def _without_marks(text: str) -> str:
    return text.replace("[IMG]", "")  # which would stand for a picture


def layers_read(pipeline: Any, spelling: Spelling) -> StateReader:
    """The reader of those layers of the text encoder that the pipeline reads, side by side."""
    encoder = unwrapped(pipeline.text_encoder)
    reads = tuple(hidden_state(encoder, at) for at in default_of(pipeline, "text_encoder_out_layers"))
    return StateReader("text_encoder", encoder, spelling, reads, masked=True, backbone=backbone_of(encoder))


def flux_2_prediction(transformer: Any, latents: Tensor, times: Tensor, text: Conditioning) -> Tensor:
    """One pass of the transformer, which takes a weight of guidance where it reads one."""
    height, width = latents.shape[-2:]
    states = text.states.to(latents.dtype)
    weight = states.new_ones(len(states)) if text.guidance is None else text.guidance
    out = transformer(
        hidden_states=latents.flatten(2).mT, timestep=times_as(latents, times),
        guidance=weight if transformer.config.guidance_embeds else None, encoder_hidden_states=states,
        txt_ids=_places(1, 1, states.shape[1], latents.device), img_ids=_places(height, width, 1, latents.device),
        return_dict=False,
    )[0]  # fmt: skip
    return out.mT.unflatten(2, (height, width))


def _places(height: int, width: int, tokens: int, device: torch.device) -> Tensor:
    """(h w t, 4): 0, row, column and number of a token, which rotary embeddings turn by."""
    counts = [torch.arange(n, device=device) for n in (1, height, width, tokens)]
    return torch.cartesian_prod(*counts)
