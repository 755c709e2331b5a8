"""The maps of one batch of prompts, while it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from concept_probe.activations.attention import AttentionCall, LookAtAttention, attending
from concept_probe.arguments import Natural, Share, check_arguments
from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.find.attention.held import held
from concept_probe.find.attention.sums import (
    AttendedRows,
    MapMeasure,
    columns_at,
    grid_of,
    looked_at,
    narrowed,
    summed,
    value_norms,
)
from concept_probe.find.attention.words import WordPlace
from concept_probe.registry import look_up
from concept_probe.types import BRANCHES, Branch, Moment, Query, Sampling


@dataclass(frozen=True)
class MapOptions:
    """Which maps are kept, and how."""

    steps: Sequence[Natural] | None = None
    """Passes of the denoiser along a trajectory, 0 the first, as `Moment.step` counts them; None keeps all."""
    heads: Literal["mean", "each"] = "mean"
    """Whether the heads of a layer are kept apart."""
    branches: Sequence[Branch] = ("cond",)
    """Of guidance: what is drawn under the prompt, or under the empty prompt."""
    measure: MapMeasure = "share"
    """`share`: the attention weight itself, of which a patch has 1 in all. `value`: that times ‖W_o V_t‖, how far the token's
    value, brought to the image stream by the head's part of W_o, could move the patch."""
    points: Sequence[tuple[Share, Share]] = ()
    """Places of the picture, in shares of its height and width, whose own looking in the picture is kept: in layers where the
    image looks at itself."""

    def __post_init__(self) -> None:
        check_arguments(self, "map options")
        for branch in self.branches:
            look_up(dict.fromkeys(BRANCHES), branch, "branch")


class MappedBatch:
    """The maps of one batch, while it is drawn."""

    def __init__(
        self, subject: DiffusionSubject, layers: Sequence[AttentionLayer], places: Sequence[Sequence[WordPlace]],
        steps: Sequence[int], options: MapOptions,
    ) -> None:  # fmt: skip
        self.subject, self.layers, self.places, self.steps, self.options = subject, layers, places, steps, options
        self.kept: dict[str, dict[int, Tensor]] = {}
        """By key of a tensor, its steps."""
        self.grids: dict[int, tuple[int, int]] = {}
        self.sigmas: dict[int, float | None] = {}

    def run(self, queries: Sequence[Query], sampling: Sampling, latents: Tensor | None) -> dict[str, Tensor]:
        """Draw the batch; its tensors, as they are kept."""
        hold = nullcontext() if latents is None else self.subject.hooked(held(latents))
        with attending(self.subject, {layer: self._look(at, layer) for at, layer in enumerate(self.layers)}), hold:
            drawn = self.subject.generate(queries, sampling)
        missing = next((step for of in self.kept.values() for step in self.steps if step not in of), None)
        if missing is not None or not self.kept:
            raise ValueError(
                f"{self.subject.name}: pass {self.steps[0] if missing is None else missing} of the trajectory was not met, since what "
                "is on lets it begin later; switch that off, or keep other `steps`"
            )
        out = {key: torch.stack([of[step] for step in self.steps]) for key, of in self.kept.items()}
        broken = next((key for key, x in out.items() if not bool(torch.isfinite(x).all())), None)
        if broken is not None:
            row, at, *_ = broken.split(".")
            raise FloatingPointError(
                f"an attention map of layer {self.layers[int(at)].name!r} is not finite for prompt "
                f"{queries[int(row)].prompt.text!r}; the batch was not written; check the weights, or run in float32"
            )
        return out | {"pictures": (drawn.nan_to_num().clamp(0, 1) * 255).round().byte().cpu()}

    def told(self) -> dict[str, Any]:
        """What the index says of the batch."""
        places = [[{"word": p.word, "nth": p.nth, "tokens": list(p.tokens)} for p in of] for of in self.places]
        grids = [list(self.grids[at]) for at in range(len(self.layers))]
        sigmas = [None if (s := self.sigmas[step]) is None or s == float("inf") else s for step in self.steps]
        return {"count": len(places), "places": places, "grids": grids, "sigmas": sigmas}

    def _look(self, at: int, layer: AttentionLayer) -> LookAtAttention:
        def look(call: AttentionCall, moment: Moment) -> None:
            if moment.nested or moment.step is None or moment.step not in self.steps:
                return
            columns = AttendedRows.of(self.subject, layer, call.query, call.key)
            self.grids[at] = grid_of(self.subject, columns.queries.shape[1])
            self.sigmas[moment.step] = moment.sigma
            out = self.subject.matrix(layer.out) if self.options.measure == "value" else None
            for branch in self.options.branches:
                rows = [i for i, one in enumerate(moment.branches) if one == branch]
                if not rows:
                    raise ValueError(
                        f"{self.subject.name}: branch {branch!r} was asked for, and the guidance does not run it; take 'cond', or a "
                        "larger weight of guidance"
                    )
                self._take(at, layer, call, columns, moment, branch, torch.tensor(rows, device=call.query.device), out)

        return look

    def _take(self, at: int, layer: AttentionLayer, call: AttentionCall, columns: AttendedRows, moment: Moment, branch: Branch,
              rows: Tensor, out: Tensor | None) -> None:  # fmt: skip
        of, mine = [moment.prompts[i] for i in rows.tolist()], columns_at(columns, rows)
        kinds = None if moment.token_kinds is None else moment.token_kinds.to(rows.device)[rows]
        places = [self.places[i] if branch == "cond" else () for i in of]
        if layer.kind != "self":
            seen = narrowed(call, rows, columns.queries)
            sums = summed(seen, mine, kinds, places, None if out is None else value_norms(seen, out))
            for i, x in zip(of, sums, strict=True):
                self._keep(f"{i}.{at}.{branch}.text", moment.step, x, self.grids[at])
        if layer.kind != "cross" and self.options.points:
            h, w = self.grids[at]
            spots = [min(int(y * h), h - 1) * w + min(int(x * w), w - 1) for y, x in self.options.points]
            from_spots = columns.queries[:, spots]
            seen = narrowed(call, rows, from_spots)
            seen_from = looked_at(seen, mine, None if out is None else value_norms(seen, out))
            for i, x in zip(of, seen_from, strict=True):
                self._keep(f"{i}.{at}.{branch}.points", moment.step, x, self.grids[at])

    def _keep(self, key: str, step: int | None, x: Tensor, grid: tuple[int, int]) -> None:
        """x (sums, heads, p) of one step."""
        x = x.mean(1, keepdim=True) if self.options.heads == "mean" else x
        self.kept.setdefault(key, {})[step or 0] = x.unflatten(-1, grid).float().cpu()
