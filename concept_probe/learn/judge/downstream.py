"""What a subject's output loses when a site is replaced: by reconstructions, and by the mean as control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from concept_probe.activations.tap import tap
from concept_probe.learn.sae import Sae
from concept_probe.types import BRANCHES, Moment, Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject


@dataclass(frozen=True)
class Coverage:
    """Which rows of a site a store holds; everything else is left as it is. An empty set means that all are held."""

    kinds: frozenset[int]
    branches: frozenset[int]
    steps: frozenset[int]

    @classmethod
    def of(cls, columns: Mapping[str, Tensor]) -> Coverage:
        def values(name: str) -> frozenset[int]:
            return frozenset(columns[name].unique().tolist()) - {-1} if name in columns else frozenset()

        return cls(values("kind"), values("branch"), values("step"))

    def mask(self, rows: Tensor, moment: Moment) -> Tensor:
        """rows (b, ..., d) -> bool (b, ..., 1), true where the store would have a row."""
        held = torch.ones(*rows.shape[:-1], 1, dtype=torch.bool, device=rows.device)
        if self.steps and moment.step is not None and moment.step not in self.steps:
            return ~held
        if self.branches:
            branch = torch.tensor([BRANCHES.index(b) in self.branches for b in moment.branches], device=rows.device)
            held &= branch.reshape(-1, *[1] * (rows.dim() - 1))
        kinds = moment.token_kinds
        if self.kinds and kinds is not None and rows.dim() == 3 and rows.shape[:2] == kinds.shape:
            held &= torch.isin(kinds.to(rows.device), torch.tensor(sorted(self.kinds), device=rows.device))[..., None]
        return held


def replacing(fn: Callable[[Tensor], Tensor], coverage: Coverage) -> Callable[[Tensor, Moment], Tensor]:
    """A tap function that puts `fn` of the rows in place of the rows that are covered.

    `fn` maps (..., d) to (..., d). A picture-shaped tensor (b, d, h, w) is read channels last.
    """

    def replace(x: Tensor, moment: Moment) -> Tensor:
        rows = rearrange(x, "b d h w -> b h w d") if x.dim() == 4 else x
        out = torch.where(coverage.mask(rows, moment), fn(rows).to(rows.dtype), rows)
        return rearrange(out, "b h w d -> b d h w") if x.dim() == 4 else out

    return replace


def downstream_errors(
    sae: Sae,
    subject: Subject,
    queries: Sequence[Prompt] | Sequence[Query],
    columns: Mapping[str, Tensor],
    mean: Tensor,
    sampling: Sampling,
) -> tuple[Tensor, Tensor]:
    """Squared change of the output per query (n,), float64: by the reconstruction, and by the mean (d,)."""
    coverage = Coverage.of(columns)
    clean = _output(subject, queries, sampling)
    errors = []
    for fn in (sae, lambda rows: mean.to(rows).expand_as(rows)):
        with tap(subject, {sae.site: replacing(fn, coverage)}):
            changed = _output(subject, queries, sampling)
        errors.append((changed - clean).square().flatten(1).sum(1).cpu())
    return errors[0], errors[1]


def _output(subject: Subject, queries: Sequence[Prompt] | Sequence[Query], sampling: Sampling) -> Tensor:
    asked = [q for q in queries if isinstance(q, Query)]
    if len(asked) == len(queries):
        return subject.generate(asked, sampling).double()
    prompts = [q for q in queries if isinstance(q, Prompt)]
    if len(prompts) != len(queries):
        raise TypeError("queries hold both Prompt and Query objects; give one kind")
    return subject.encode(prompts).states.double()
