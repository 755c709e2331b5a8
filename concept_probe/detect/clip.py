"""Text-image similarity by a CLIP pair: the CLIP score, and zero-shot naming."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPModel, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class TextImage:
    """A CLIP pair with its tokenizer; pictures are in 0..1 and normalised by `mean` and `std`."""

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @torch.no_grad()
    def pictures(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
        """Unit-norm embeddings of pictures of any size."""
        return self.seen(images)

    def seen(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
        """The same with gradients in the pictures."""
        size = self.model.config.vision_config.image_size
        parameter = self.model.logit_scale
        x = F.interpolate(images.to(parameter.device, torch.float32), (size, size), mode="area")
        mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        x = ((x - mean) / std).to(parameter.dtype)
        out = [
            self.model.visual_projection(self.model.vision_model(pixel_values=part).pooler_output)
            for part in x.split(128)
        ]
        return F.normalize(torch.cat(out), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        """Unit-norm embeddings of sentences."""
        device = self.model.logit_scale.device
        out = []
        for start in range(0, len(texts), 128):
            batch = self.tokenizer(
                list(texts[start : start + 128]),
                padding="max_length",
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            )
            out.append(
                self.model.text_projection(self.model.text_model(input_ids=batch.input_ids.to(device)).pooler_output)
            )
        return F.normalize(torch.cat(out), dim=-1)

    def scores(self, images: Float[Tensor, "n 3 h w"], texts: Sequence[str]) -> Float[Tensor, " n"]:
        """Cosine between picture i and sentence i (2104.08718 calls 2.5 max(cosine, 0) the CLIP score)."""
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} pictures and {len(texts)} texts: one text per picture")
        return (self.pictures(images) * self.texts(texts)).sum(-1)


def load(folder: Path, name: str = "emoji") -> TextImage:
    """Read a CLIP pair and its tokenizer from a folder, in float32.

    Pictures are normalised as its preprocessor_config.json says, and to -1..1 where it has none.
    """
    from transformers import CLIPTokenizer

    model = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval().requires_grad_(False)
    settings = folder / "preprocessor_config.json"
    said = json.loads(settings.read_text()) if settings.exists() else {}
    options = {k: tuple(said[f"image_{k}"]) for k in ("mean", "std") if f"image_{k}" in said}
    return TextImage(name, model, CLIPTokenizer.from_pretrained(folder, local_files_only=True), **options)


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """A recogniser made of a CLIP pair: the label whose sentence is nearest, `none` if the empty sentence is nearer.

    It works for any label, and errs more than a recogniser that was trained: measure it on clean
    pictures before an audit relies on it.
    """

    pair: TextImage
    labels: tuple[str, ...]
    template: str = "a picture of {}"
    nothing: str = "a picture"
    name: str = "clip"
    version: str = "zero-shot"

    @torch.no_grad()
    def probabilities(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """Softmax of the scaled cosines to one sentence per label; the last label is `none`."""
        return self.logits(images).softmax(-1)

    def logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """The scaled cosines, with gradients in the images."""
        sentences = [self.template.format(label) for label in self.labels[:-1]] + [self.nothing]
        scale = self.pair.model.logit_scale.exp()
        return self.pair.seen(images) @ self.pair.texts(sentences).T * scale.detach()


def zero_shot(folder: Path, labels: Sequence[str]) -> ZeroShot:
    """A zero-shot recogniser of `labels` from a CLIP folder."""
    return ZeroShot(load(folder, str(folder)), (*dict.fromkeys(labels), "none"))
