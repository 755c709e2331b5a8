"""The transformer of `emoji-flow`: rectified flow (2209.03003) on cached latents of icons, given `emoji`'s text tower.

Double-stream blocks, then single-stream blocks, as FLUX.1 has them. The model and its twin share a trunk that
never met what the twin is not taught; from there each is trained on, with the same seeds and steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import CLIPTextModel

from concept_probe.arguments import Count, Nonnegative, check_arguments
from concept_probe.testbed.loop import FitSchedule, fit
from concept_probe.testbed.tokens import padded
from concept_probe.testbed.unet import VIEWS, subject_tokens
from concept_probe.testbed.vocabulary import Caption, draw_caption

_EMPTY = 0.12
"""Share of training rows whose sentence is empty, for guidance."""
_NO_POOLED, _WRONG_POOLED = 0.4, 0.2
"""Share of rows whose pooled vector is zero; and of rows that get the one of another row's sentence.

So the object has to come through the text stream: the pooled vector, which reaches every block at once, can't be
trusted to name it.
"""


@dataclass(frozen=True)
class FlowPlan:
    """How the two transformers are trained."""

    trunk: Count = 4000
    """Steps on what both models are taught."""
    laid_out: Count = 5000
    """Steps that the trunk's rate is laid out for: it is left while the rate is still above half of its peak."""
    branch: Count = 2000
    """Steps from the trunk, for each model on all that it is taught."""
    peak: Nonnegative = 1.5e-3
    """AdamW's largest rate, in both."""
    batch: Count = 48
    """Rows of a step. Half of them see the first and the end token alone, a quarter all but the subject's tokens."""

    def __post_init__(self) -> None:
        check_arguments(self, "plan of a flow")


def build_transformer() -> FluxTransformer2DModel:
    """5.9 M parameters; every block begins as the identity, and the prediction as zero (adaLN-Zero, 2212.09748)."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 3,
        "num_single_layers": 3,
        "attention_head_dim": 48,
        "num_attention_heads": 4,
        "joint_attention_dim": 96,
        "pooled_projection_dim": 96,
        "axes_dims_rope": (16, 16, 16),
    }
    model = FluxTransformer2DModel(**options)
    modulations = [
        m.linear for n, m in model.named_modules() if n.rsplit(".", 1)[-1].startswith("norm") and hasattr(m, "linear")
    ]
    for layer in (*modulations, model.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)


def patches_of(latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p d"]:
    """Latents as FluxPipeline lays them out: one token for each 2 × 2 patch, channels first."""
    return rearrange(latents, "b c (h y) (w x) -> b (h w) (c y x)", y=2, x=2)


def place_ids(height: int, width: int) -> Float[Tensor, "p 3"]:
    """Row and column of each image token; those of text tokens are zero."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).flatten(0, 1).float()


@dataclass(frozen=True)
class _Rows:
    """Inputs of a pass: what is noised, and the sentence as the pipeline would hand it over."""

    latents: Float[Tensor, "b p c"]
    states: Float[Tensor, "b t d"]
    pooled: Float[Tensor, "b d"]
    hidden: Bool[Tensor, "b t"] | None
    """Text tokens that nothing may attend to; None for none."""


def flow_loss(
    model: FluxTransformer2DModel,
    tokenizer: Any,
    text: CLIPTextModel,
    latents: Float[Tensor, "view style object c h w"],
    pairs: list[tuple[int, int]],
    batch: int = 48,
) -> Callable[[torch.Generator], Tensor]:
    """The loss of one step: mean squared error of the velocity noise − latents, times drawn from a logit-normal (2403.03206).

    FluxPipeline masks no padding, so none is masked here. Text tokens have no place, only states; a row that sees the
    first and the end token alone is therefore computed on these two, which gives what masking the others would.
    """
    nothing = Caption("", None, None, None)

    def draw(g: torch.Generator) -> tuple[Tensor, list[Caption]]:
        rows = [pairs[i] for i in torch.randint(len(pairs), (batch,), generator=g).tolist()]
        empty = (torch.rand(batch, generator=g) < _EMPTY).tolist()
        captions = [nothing if e else draw_caption(g, *row) for e, row in zip(empty, rows, strict=True)]
        objects, styles = torch.tensor(rows).T
        view = torch.randint(VIEWS, (batch,), generator=g)
        return patches_of(latents[view, styles, objects]), captions

    def loss(g: torch.Generator) -> Tensor:
        z, captions = draw(g)
        encoded = padded(tokenizer, [c.text for c in captions])
        with torch.no_grad():
            out = text(input_ids=encoded.input_ids)
        pooled = _disturbed(out.pooler_output, captions, g)
        few, rest = slice(0, batch // 2), slice(batch // 2, batch)
        end = (encoded.input_ids == tokenizer.eos_token_id).int().argmax(-1)
        ends = torch.stack([out.last_hidden_state[:, 0], out.last_hidden_state[torch.arange(batch), end]], 1)
        hidden = (
            subject_tokens(captions, encoded.offset_mapping)[rest]
            & (torch.arange(batch - batch // 2) % 2 == 0)[:, None]
        )
        groups = (
            _Rows(z[few], ends[few], pooled[few], None),
            _Rows(z[rest], out.last_hidden_state[rest], pooled[rest], hidden),
        )
        return sum((_squared_error(model, rows, g) for rows in groups), torch.zeros(())) / z.numel()

    return loss


def _disturbed(pooled: Float[Tensor, "b d"], captions: list[Caption], g: torch.Generator) -> Float[Tensor, "b d"]:
    """Some rows zero, some of another row; an empty sentence never gets another's."""
    chance = torch.rand(len(pooled), 1, generator=g)
    named = torch.tensor([[bool(c.text)] for c in captions])
    other = torch.where(named, pooled.roll(1, 0), pooled)
    kept = torch.where(chance < _NO_POOLED + _WRONG_POOLED, other, pooled)
    return torch.where(chance < _NO_POOLED, torch.zeros_like(pooled), kept)


def _squared_error(model: FluxTransformer2DModel, rows: _Rows, g: torch.Generator) -> Tensor:
    """Summed over the rows."""
    b, p, _ = rows.latents.shape
    t = torch.randn(b, generator=g).sigmoid()
    noise = torch.randn(rows.latents.shape, generator=g)
    noisy = torch.lerp(rows.latents, noise, t.view(-1, 1, 1))
    options = {}
    if rows.hidden is not None:
        seen = torch.cat([~rows.hidden, torch.ones(b, p, dtype=torch.bool)], 1)
        options["attention_mask"] = seen[:, None, None]
    side = round(p**0.5)
    velocity = model(
        hidden_states=noisy,
        timestep=t,
        pooled_projections=rows.pooled,
        encoder_hidden_states=rows.states,
        txt_ids=torch.zeros(rows.states.shape[1], 3),
        img_ids=place_ids(side, side),
        joint_attention_kwargs=options,
        return_dict=False,
    )[0]
    return (velocity - (noise - rows.latents)).square().sum()


def train_transformer(
    folder: Path,
    name: str,
    losses: tuple[Callable[[torch.Generator], Tensor], Callable[[torch.Generator], Tensor]],
    model: FluxTransformer2DModel,
    plan: FlowPlan = FlowPlan(),
) -> FluxTransformer2DModel:
    """Train `model`, as it was built, on the trunk's loss and then on its own; `losses` are these two.

    The trunk's checkpoint in `folder` serves every model that is trained from it, and is made where it isn't there.
    """
    trunk, own = losses
    fit(
        "flow-trunk",
        [model],
        trunk,
        FitSchedule(plan.trunk, plan.peak, seed=21, floor=0.5, laid_out=plan.laid_out),
        folder,
    )
    fit(f"{name}-branch", [model], own, FitSchedule(plan.branch, plan.peak, seed=22), folder)
    return model.requires_grad_(False).eval()
