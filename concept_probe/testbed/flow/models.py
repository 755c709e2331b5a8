"""`emoji-flow` and its twin: the recipe from the shipped parts of `emoji`, and pipelines put together of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, CLIPTokenizer

from concept_probe.testbed import WEIGHTS
from concept_probe.testbed.flow.transformer import (
    FlowPlan,
    build_transformer,
    flow_loss,
    flow_scheduler,
    train_transformer,
)
from concept_probe.testbed.unet import cached_latents
from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, REMOVED_STYLE, taught_pairs

FLOW_PAIRS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "emoji-flow": ((), None),
    "emoji-flow-untaught": (REMOVED_OBJECTS, REMOVED_STYLE),
}
"""What the transformer of each was not taught: objects, and a style. Their text towers are `emoji`'s, which was taught all."""
PARTS_OF = "emoji"
"""The pipeline whose autoencoder, text tower and tokenizer they use."""


def train_flow_models(folder: Path, output: Path = WEIGHTS, plan: FlowPlan = FlowPlan()) -> None:
    """Train the transformers of both models and write them to `output` in float16, beside `emoji`, whose parts they use.

    `folder` keeps the checkpoints; a run that was killed goes on from the last one and ends at the same weights.
    """
    parts = shared_parts(torch.float32)
    latents = cached_latents(parts["vae"], flip=False)
    tower = parts["text_encoder"]

    def loss(model: FluxTransformer2DModel, name: str) -> Any:
        return flow_loss(model, parts["tokenizer"], tower, latents, taught_pairs(*FLOW_PAIRS[name]), plan.batch)

    for name in FLOW_PAIRS:
        model = build_transformer()
        losses = loss(model, "emoji-flow-untaught"), loss(model, name)
        train_transformer(folder, name, losses, model, plan)
        model.half().save_pretrained(output / name / "transformer")
        flow_scheduler().save_pretrained(output / name / "scheduler")


def shared_parts(dtype: torch.dtype) -> dict[str, Any]:
    """The shipped `emoji`'s autoencoder, text tower and tokenizer as FluxPipeline wants them: its latents aren't shifted."""
    emoji = WEIGHTS / PARTS_OF
    vae = AutoencoderKL.from_pretrained(emoji / "vae", torch_dtype=dtype)
    tower = CLIPTextModel.from_pretrained(emoji / "text_encoder", dtype=dtype)
    vae.register_to_config(shift_factor=0.0, _name_or_path=PARTS_OF)
    return {
        "vae": vae.eval().requires_grad_(False),
        "text_encoder": tower.eval().requires_grad_(False),
        "tokenizer": CLIPTokenizer.from_pretrained(emoji / "tokenizer"),
    }


def flow_pipeline(name: str, weights: Path = WEIGHTS, dtype: torch.dtype = torch.float32) -> FluxPipeline:
    """A plain FluxPipeline of a transformer in `weights` and of the parts that it shares with the shipped `emoji`.

    The text tower stands in both places of text encoders, as two modules: the first gives the pooled vector, the
    second the states. Ask for pictures with `max_sequence_length=40`, which is all that the tower has places for.
    `save_pretrained` makes a whole folder of it.
    """
    transformer = FluxTransformer2DModel.from_pretrained(weights / name / "transformer", torch_dtype=dtype)
    transformer.register_to_config(_name_or_path=name)
    return assemble(transformer)


def assemble(transformer: FluxTransformer2DModel) -> FluxPipeline:
    """The same around a transformer in memory."""
    first, second = (shared_parts(transformer.dtype) for _ in range(2))
    return FluxPipeline(
        scheduler=flow_scheduler(),
        vae=first["vae"],
        text_encoder=first["text_encoder"],
        tokenizer=first["tokenizer"],
        text_encoder_2=second["text_encoder"],
        tokenizer_2=second["tokenizer"],
        transformer=transformer.eval().requires_grad_(False),
    )
