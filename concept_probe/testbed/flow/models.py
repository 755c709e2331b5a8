"""`emoji-flow` and its twin: the recipe from the shipped parts of `emoji`, and pipelines put together of them."""

from __future__ import annotations

import shutil
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
from concept_probe.testbed.folders import clear_origins
from concept_probe.testbed.unet import cached_latents
from concept_probe.testbed.vocabulary import NOT_TAUGHT, taught_pairs

FLOWS = ("emoji-flow", "emoji-flow-untaught")
"""Both have `emoji`'s text tower, which was taught all: what the second was not taught, its transformer was not."""
TRUNK = "emoji-flow-untaught"
"""Whose lessons the trunk is trained on, from which both begin."""
PARTS_OF = "emoji"
"""The pipeline whose autoencoder, text tower and tokenizer they use."""


def train_flow_models(folder: Path, output: Path = WEIGHTS, plan: FlowPlan = FlowPlan()) -> None:
    """Train the transformers of both models and write them to `output`, each in a whole pipeline.

    `folder` keeps the checkpoints; a run that was killed goes on from the last one and ends at the same weights.
    """
    parts = shared_parts(torch.float32)
    latents = cached_latents(parts["vae"], flip=False)
    tower = parts["text_encoder"]

    def loss(model: FluxTransformer2DModel, name: str) -> Any:
        return flow_loss(model, parts["tokenizer"], tower, latents, taught_pairs(*NOT_TAUGHT[name]), plan.batch)

    for name in FLOWS:
        model = build_transformer()
        losses = loss(model, TRUNK), loss(model, name)
        train_transformer(folder, name, losses, model, plan)
        write_pipeline(model, name, output)


def write_pipeline(transformer: FluxTransformer2DModel, name: str, output: Path) -> None:
    """Write a whole pipeline around a transformer to `output` / `name`, in float16: a folder that diffusers loads."""
    pipeline = assemble(transformer.half())
    shutil.rmtree(output / name, ignore_errors=True)
    pipeline.save_pretrained(output / name)
    clear_origins(output / name, name)


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


def assemble(transformer: FluxTransformer2DModel) -> FluxPipeline:
    """A plain FluxPipeline of a transformer and of the parts that it shares with `emoji`.

    The text tower stands in both places of text encoders, as two modules: the first gives the pooled vector, the
    second the states. Ask for pictures with `max_sequence_length=40`, which is all that the tower has places for.
    """
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
