"""What training asks of a subject: latents met on the way from noise to a picture, and predictions at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.types import Moment, Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject


@runtime_checkable
class Denoiser(Protocol):
    """What methods that train ask of a subject, beyond what every subject has."""

    def predict(self, seen: Tensor, timesteps: Tensor, condition: Any) -> Tensor: ...
    def repredict(self, condition: Any | None, rows: Sequence[int]) -> Tensor: ...
    def with_null_text(self, condition: Any, rows: Tensor) -> Any: ...


def denoiser(subject: Subject, method: str) -> Denoiser:
    """The subject, as one that denoises. Raises TypeError where it does not."""
    if not isinstance(subject, Denoiser):
        raise TypeError(f"{method}: {subject.name!r} is no denoiser; this method needs a text-to-image pipeline")
    return subject


@dataclass(frozen=True)
class Pool:
    """n inputs of the denoiser on its walks from noise to pictures."""

    seen: Tensor
    """(n, c, h, w), as the scheduler scales them"""
    timesteps: Tensor
    """(n,), whole numbers: those of schedulers that step between them are cut"""
    prompts: tuple[Prompt, ...]
    """What each walk was asked for, n of them."""

    def rows(self, index: Tensor) -> Pool:
        return Pool(self.seen[index], self.timesteps[index], tuple(self.prompts[i] for i in index.tolist()))

    def __len__(self) -> int:
        return len(self.prompts)


@torch.no_grad()
def walks(subject: Subject, prompts: Sequence[Prompt], count: int, sampling: Sampling, seed: int) -> Pool:
    """Partial denoising: what the denoiser sees at every step of `count` walks, prompts in turn, seeds from `seed` on.

    Every step of a walk is a latent at its timestep, so one walk serves `sampling.steps` of them.
    """
    queries = [Query(prompts[i % len(prompts)], seed + i) for i in range(count)]
    site = subject.sites("denoiser_in")[0]
    seen, times, asked = [], [], []
    for start in range(0, len(queries), sampling.batch):
        batch = queries[start : start + sampling.batch]

        def look(x: Tensor, moment: Moment, batch: Sequence[Query] = batch) -> None:
            rows = [i for i, branch in enumerate(moment.branches) if branch == "cond"]
            seen.append(x[rows].clone())
            times.append(torch.full((len(rows),), moment.timestep or 0, device=x.device))
            asked.extend(batch[moment.prompts[i]].prompt for i in rows)

        with tap(subject, {site: look}):
            subject.run_to([site], batch, sampling)
    return Pool(torch.cat(seen), torch.cat(times), tuple(asked))


@torch.no_grad()
def predictions(subject: Subject, pool: Pool, prompts: Sequence[Prompt], method: str, batch: int = 32) -> Tensor:
    """What the subject, as it is now, says of a pool's latents under `prompts` (n of them): (n, c, h, w)."""
    model, out = denoiser(subject, method), []
    for start in range(0, len(pool), batch):
        part = slice(start, start + batch)
        out.append(model.predict(pool.seen[part], pool.timesteps[part], conditions(subject, prompts[part], method)))
    return torch.cat(out)


def read(subject: Subject, prompts: Sequence[Prompt], method: str) -> Any:
    """The subject's reading of `prompts`, the empty one as guidance has it, which may be zeros; gradients pass."""
    condition = subject.encode(prompts)
    empty = torch.tensor([not prompt.text for prompt in prompts])
    return denoiser(subject, method).with_null_text(condition, empty) if empty.any() else condition


def conditions(subject: Subject, prompts: Sequence[Prompt], method: str) -> Any:
    """As `read`, each distinct prompt read once."""
    distinct = list(dict.fromkeys(prompts))
    place = {prompt: i for i, prompt in enumerate(distinct)}
    index = torch.tensor([place[p] for p in prompts], device=subject.device)
    return read(subject, distinct, method).rows(index)
