"""Text-image similarity by a CLIP pair: the CLIP score, and zero-shot naming."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPModel, PreTrainedTokenizerBase

from concept_probe.storage import tensors_sha256, text_sha256


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

    def digest(self) -> str:
        """Hex sha256 of the weights and of how pictures are normalised, which tells versions of a pair apart."""
        return tensors_sha256(sorted(self.model.state_dict().items()), f"{self.mean} {self.std}\n")


def load_clip(source: Path | str, name: str = "emoji") -> TextImage:
    """Read a CLIP pair and its tokenizer, in float32, from a folder that `save_pretrained` wrote or a hub id.

    Pictures are normalised as its preprocessor_config.json says, and to -1..1 where it has none.
    Raises FileNotFoundError for a source that is neither; weights other than safetensors are refused.
    """
    from transformers import CLIPTokenizer
    from transformers.utils import cached_file

    here = Path(source).is_dir()
    if not here and str(source).count("/") != 1:
        raise FileNotFoundError(
            f"CLIP pair: folder {source} not found; give a folder that CLIPModel.save_pretrained wrote, with its "
            "tokenizer, or a hub id (owner/name)"
        )
    options: dict[str, Any] = {"local_files_only": here}
    model = CLIPModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **options)
    settings = cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False, **options)
    said = json.loads(Path(settings).read_text(encoding="utf-8")) if settings else {}
    pictures = {k: tuple(said[f"image_{k}"]) for k in ("mean", "std") if f"image_{k}" in said}
    words = CLIPTokenizer.from_pretrained(source, **options)
    return TextImage(name, model.eval().requires_grad_(False), words, **pictures)


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """A recogniser made of a CLIP pair: the label whose sentences are nearest, `none` if those of nothing are nearer.

    >>> looks = ZeroShot(load("my-clip", "my-clip"), ("church", "castle", "none"))

    It works for any label, and errs more than a recogniser that was trained: measure it on clean
    pictures before an audit relies on it (`evaluation.recogniser_rates`).
    """

    pair: TextImage
    labels: tuple[str, ...]
    templates: tuple[str, ...] = ("a picture of {}", "a drawing of {}", "an icon of {}", "{}")
    """Sentences about a label, whose embeddings are averaged (prompt ensembling of arXiv 2103.00020, section 3.1.4)."""
    nothing: tuple[str, ...] = ("a picture", "a drawing", "an icon", "")
    """Sentences for `none`, averaged likewise."""
    name: str = "clip"

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or self.labels[-1] != "none":
            raise ValueError(f"clip: labels are {', '.join(self.labels) or 'missing'}; give some, the last one 'none'")
        if not self.templates or not self.nothing or any("{}" not in t for t in self.templates):
            raise ValueError("clip: every one of `templates` needs a {} for the label, and `nothing` a sentence")

    @property
    def version(self) -> str:
        """Changes with the weights, the labels and the sentences."""
        return self._version

    @cached_property
    def _version(self) -> str:
        told = "\n".join((self.pair.digest(), *self.labels, *self.templates, *self.nothing))
        return f"zero-shot-{text_sha256(told)[:12]}"

    @cached_property
    def directions(self) -> Float[Tensor, "labels e"]:
        """Unit vectors, one per label."""
        sentences = [[t.format(label) for t in self.templates] for label in self.labels[:-1]]
        means = [self.pair.texts(of).mean(0) for of in (*sentences, list(self.nothing))]
        return F.normalize(torch.stack(means), dim=-1)

    @torch.no_grad()
    def probabilities(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """Softmax of the scaled cosines to each label's sentences; the last label is `none`."""
        return self.logits(images).softmax(-1)

    def logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """The scaled cosines, with gradients in the images."""
        return self.pair.seen(images) @ self.directions.T * self.pair.model.logit_scale.exp().detach()


def zero_shot(source: Path | str, labels: Sequence[str]) -> ZeroShot:
    """A zero-shot recogniser of `labels` from a CLIP folder or hub id."""
    return ZeroShot(load_clip(source, str(source)), (*dict.fromkeys(labels), "none"))
