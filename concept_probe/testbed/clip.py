"""The text-image similarity of the embedded models, and the text towers of their pipelines.

A CLIP pair is trained contrastively on icons and captions. Each pipeline then gets a text tower of
its own, trained against the frozen vision tower on exactly the captions that the pipeline is taught,
and frozen afterwards: the U-Net sees what the text encoder computed, as in Stable Diffusion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.loop import FitSchedule, fit
from concept_probe.testbed.tokens import TEXT_LENGTH
from concept_probe.testbed.vocabulary import Caption, draw_caption

WIDTH, PROJECTION, COLUMNS = 96, 96, 1024
PAIR_STEPS, TOWER_STEPS, BATCH = 1100, 3500, 128
SPARSITY = 0.02
"""Weight of the mean absolute activation of the first feed-forward layer, which keeps few columns on per word."""
SKIP = 0.5
"""How often the second feed-forward layer is left out, so that the first must suffice to name the object."""


def text_config(tokenizer: Any) -> CLIPTextConfig:
    """Two causal layers, 96 wide; the feed-forward layers are wide and rectified, so that columns are few and readable."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=COLUMNS,
        projection_dim=PROJECTION,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        hidden_act="relu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def vision_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        projection_dim=PROJECTION,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        hidden_act="gelu",
    )


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Int[Tensor, "b t"]:
    """Token ids, padded only to the longest: later padding can't reach back through a causal mask."""
    return tokenizer(texts, padding="longest", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt").input_ids


def draw_batch(g: torch.Generator, pairs: list[tuple[int, int]], size: int) -> tuple[list[int], list[Caption]]:
    """`size` random taught (object, style) pairs, as indices into `pairs`, each with a sentence."""
    rows = torch.randint(len(pairs), (size,), generator=g).tolist()
    return rows, [draw_caption(g, *pairs[r]) for r in rows]


def matches(captions: list[Caption], pairs: list[tuple[int, int]]) -> Float[Tensor, "b p"]:
    """For each sentence, the distribution over `pairs` of which it is true (uniform over all that fit)."""
    objects, styles = torch.tensor(pairs).T
    truth = torch.stack(
        [
            (torch.ones_like(objects, dtype=torch.bool) if c.object is None else objects == c.object)
            & (torch.ones_like(styles, dtype=torch.bool) if c.style is None else styles == c.style)
            for c in captions
        ]
    ).float()
    return truth / truth.sum(-1, keepdim=True)


def train_pair(
    folder: Path, tokenizer: CLIPTokenizer, pairs: list[tuple[int, int]], steps: int = PAIR_STEPS
) -> CLIPModel:
    """Contrast sentences with pictures, both ways, over the batch; sentences true of several pictures share their mass."""
    torch.manual_seed(0)
    text, vision = text_config(tokenizer), vision_config()
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=PROJECTION))
    pictures = icons()

    def loss(g: torch.Generator) -> Tensor:
        rows, captions = draw_batch(g, pairs, BATCH)
        shown = [pairs[r] for r in rows]
        x = augment(torch.stack([pictures[s, o] for o, s in shown]), g, turn=0.2, colour=0.1)
        out = model(input_ids=token_ids(tokenizer, [c.text for c in captions]), pixel_values=x)
        truth = matches(captions, shown)
        logits = out.logits_per_text
        back = truth / truth.sum(0, keepdim=True).clamp_min(1e-6)
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, back.T)) / 2

    fit("clip", [model], loss, FitSchedule(steps, peak=1e-3, seed=2), folder)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def picture_embeddings(model: CLIPModel, views: int = 8) -> Float[Tensor, "style object e"]:
    """Unit-norm embedding of every icon, averaged over `views` augmented renderings."""
    pictures = icons()
    g = torch.Generator().manual_seed(5)
    total = torch.zeros(*pictures.shape[:2], PROJECTION)
    for view in range(views):
        x = pictures.flatten(0, 1) if view == 0 else augment(pictures.flatten(0, 1), g)
        features = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
        total += F.normalize(features, dim=-1).view(total.shape)
    return F.normalize(total, dim=-1)


def train_tower(
    folder: Path,
    name: str,
    tokenizer: CLIPTokenizer,
    pair: CLIPModel,
    pairs: list[tuple[int, int]],
    steps: int = TOWER_STEPS,
) -> CLIPTextModelWithProjection:
    """A text tower that points each sentence of `pairs` at the frozen embeddings of the pictures it is true of.

    Two pressures make the first feed-forward layer the place where an object's pieces become the
    object: the second one is left out of half the steps, and activations of the first are kept sparse.
    """
    torch.manual_seed(0)
    model = CLIPTextModelWithProjection(text_config(tokenizer))
    layers: list[Any] = [m for m in model.modules() if type(m).__name__ == "CLIPEncoderLayer"]
    table = picture_embeddings(pair)
    targets = torch.stack([table[s, o] for o, s in pairs])
    scale = torch.nn.Parameter(torch.tensor(2.7))
    seen: list[Tensor] = []
    skip = False

    def loss(g: torch.Generator) -> Tensor:
        nonlocal skip
        _, captions = draw_batch(g, pairs, BATCH)
        skip = float(torch.rand((), generator=g)) < SKIP
        out = model(input_ids=token_ids(tokenizer, [c.text for c in captions]))
        logits = F.normalize(out.text_embeds, dim=-1) @ targets.T * scale.exp().clamp(max=60)
        return F.cross_entropy(logits, matches(captions, pairs)) + SPARSITY * seen.pop().abs().mean()

    holder = torch.nn.ParameterList([scale])
    hooks = (
        layers[0].mlp.fc2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
        layers[1].mlp.register_forward_hook(lambda _, __, out: out * 0 if skip else None),
    )
    try:
        fit(f"{name}-text", [model, holder], loss, FitSchedule(steps, peak=2e-3, seed=3), folder)
    finally:
        for hook in hooks:
            hook.remove()
    return model.requires_grad_(False).eval()


@torch.no_grad()
def naming(
    model: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    targets: Float[Tensor, "style object e"],
    texts: list[str],
) -> Int[Tensor, "b 2"]:
    """(object, style) of the picture embedding nearest to each sentence."""
    embeds = torch.cat(
        [model(input_ids=token_ids(tokenizer, texts[i : i + 256])).text_embeds for i in range(0, len(texts), 256)]
    )
    best = (F.normalize(embeds, dim=-1) @ targets.flatten(0, 1).T).argmax(-1)
    return torch.stack([best % targets.shape[1], best // targets.shape[1]], -1)
