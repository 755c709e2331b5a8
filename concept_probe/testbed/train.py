"""The whole recipe: from rendered icons to the shipped folders of the embedded models. Resumable."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from concept_probe.testbed import WEIGHTS, autoencoder, clip, recogniser, tokens, unet
from concept_probe.testbed.folders import clear_origins
from concept_probe.testbed.vocabulary import NOT_TAUGHT, taught_pairs

MODELS = ("emoji", "emoji-untaught")
"""What is made here; `testbed.flow` makes others of their parts."""


def train_embedded_models(folder: Path, output: Path = WEIGHTS) -> None:
    """Train every part that `folder` does not hold yet and write the models to `output`.

    `folder` keeps checkpoints of every stage; a run that was killed goes on from the last one and
    ends at the same weights. On two cores the whole recipe takes about two hours.
    """
    parts = folder / "parts"
    tokenizer = tokens.build_tokenizer(parts / "tokenizer")
    vae = _part(parts / "vae", AutoencoderKL, lambda: autoencoder.train_autoencoder(folder))
    pair = _part(parts / "clip", CLIPModel, lambda: clip.train_pair(folder, tokenizer, taught_pairs()))
    if not (parts / "recogniser" / "recogniser.json").exists():
        network = recogniser.train_recogniser(folder, vae)
        recogniser.save_recogniser(network, parts / "recogniser", recogniser.error_rates(network, vae))
    for name in MODELS:
        pairs = taught_pairs(*NOT_TAUGHT[name])
        tower = _part(
            parts / name / "text",
            CLIPTextModelWithProjection,
            lambda name=name, pairs=pairs: clip.train_tower(folder, name, tokenizer, pair, pairs),
        )
        if not (parts / name / "unet" / "config.json").exists():
            unet.train_unet(folder, name, tokenizer, tower, vae, pairs).save_pretrained(parts / name / "unet")
    export(parts, output)


def _part(folder: Path, kind, make):
    """Load a finished part, or make and save it."""
    if not (folder / "config.json").exists():
        make().save_pretrained(folder)
    return kind.from_pretrained(folder).eval().requires_grad_(False)


def export(parts: Path, output: Path) -> None:
    """Write float16 pipelines as folders that diffusers loads, and CLIP pair and recogniser in `shared`."""
    shared = output / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    CLIPModel.from_pretrained(parts / "clip").half().save_pretrained(shared / "clip")
    CLIPTokenizer.from_pretrained(parts / "tokenizer").save_pretrained(shared / "clip")
    for name in ("recogniser.json", "recogniser.safetensors"):
        shutil.copy(parts / "recogniser" / name, shared / name)
    for name in MODELS:
        tower = CLIPTextModel.from_pretrained(parts / name / "text").half()
        tower.config.architectures = ["CLIPTextModel"]
        parts_of: dict[str, Any] = {
            "vae": AutoencoderKL.from_pretrained(parts / "vae").half(),
            "text_encoder": tower,
            "tokenizer": CLIPTokenizer.from_pretrained(parts / "tokenizer"),
            "unet": UNet2DConditionModel.from_pretrained(parts / name / "unet").half(),
            "scheduler": unet.scheduler(),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        pipeline = StableDiffusionPipeline(**parts_of)
        shutil.rmtree(output / name, ignore_errors=True)
        pipeline.save_pretrained(output / name)
        clear_origins(output / name, name)
