"""A training loop whose result does not depend on how often it was interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from concept_probe.storage import read_tensors, remove_unfinished, write_sealed


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of randomness of one step: a function of (seed, step) and of nothing else."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step * 7_919 + 17) % (2**62))


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100, floor: float = 0.02) -> float:
    """Linear warm-up, then a cosine down to the share `floor` of `peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    phase = (step - warmup) / max(1, steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * phase)))


@dataclass(frozen=True)
class FitSchedule:
    """How long and how fast a stage is trained."""

    steps: int
    peak: float
    """AdamW's largest rate, at the end of the warm-up."""
    seed: int = 0
    """Of every step's draws."""
    warmup: int = 100
    """Steps in which the rate rises."""
    every: int = 250
    """Steps between two checkpoints."""
    average: float = 0.999
    """Weight of the past in the running mean of the weights, once there are enough steps."""
    decay: float = 0.01
    """AdamW's decay of the weights."""
    floor: float = 0.02
    """Share of `peak` that the rate falls to; more where training goes on from the result."""
    laid_out: int | None = None
    """Steps over which the rate falls; more than `steps` stops before it has fallen. None for `steps`."""


def fit(
    name: str,
    modules: Iterable[nn.Module],
    loss: Callable[[torch.Generator], Tensor],
    schedule: FitSchedule,
    folder: Path,
) -> list[float]:
    """Minimise `loss` over the parameters of `modules` and leave their weight average in place.

    `loss` draws all its randomness from the generator it is given, so a run that was killed and
    started again gives the weights of an uninterrupted one. A checkpoint is written to
    `folder/name.safetensors` every `schedule.every` steps; returns the mean loss of each such stretch.
    """
    steps = schedule.steps
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=schedule.peak, weight_decay=schedule.decay, betas=(0.9, 0.99), fused=True
    )
    mean = [p.detach().clone() for p in parameters]
    path, start, history = folder / f"{name}.safetensors", 0, []
    remove_unfinished(folder, path.name)
    if path.exists():
        start, history = _restore(path, parameters, mean, optimiser)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[value]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(name, total=steps, completed=start, value=history[-1] if history else math.nan)
        running, count = 0.0, 0
        for step in range(start, steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(
                    step, schedule.laid_out or steps, schedule.peak, schedule.warmup, schedule.floor
                )
            value = loss(step_generator(schedule.seed, step))
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            weight = min(schedule.average, (step + 1) / (step + 10))
            torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - weight)
            running, count = running + float(value.detach()), count + 1
            if not math.isfinite(running):
                raise FloatingPointError(f"stage {name!r}: loss is {float(value)} at step {step}; lower the rate")
            if (step + 1) % schedule.every == 0 or step + 1 == steps:
                history.append(running / count)
                running, count = 0.0, 0
                _save(path, parameters, mean, optimiser, step + 1, history)
                print(f"{name} step {step + 1} loss {history[-1]:.5f}", flush=True)
            progress.update(bar, completed=step + 1, value=history[-1] if history else float(value.detach()))
    with torch.no_grad():
        for parameter, averaged in zip(parameters, mean, strict=True):
            parameter.copy_(averaged)
    return history


def _save(path, parameters, mean, optimiser, step, history) -> None:
    tensors = {}
    for i, (parameter, averaged) in enumerate(zip(parameters, mean, strict=True)):
        state = optimiser.state[parameter]
        tensors |= {
            f"{i}.value": parameter.detach(),
            f"{i}.mean": averaged,
            f"{i}.step": state["step"],
            f"{i}.first": state["exp_avg"],
            f"{i}.second": state["exp_avg_sq"],
        }
    write_sealed(path, tensors, {"step": str(step), "history": json.dumps(history)})


def _restore(path, parameters, mean, optimiser) -> tuple[int, list[float]]:
    held, metadata = read_tensors(path, "delete it to train this stage from the start", sealed=True)
    with torch.no_grad():
        for i, (parameter, averaged) in enumerate(zip(parameters, mean, strict=True)):
            parameter.copy_(held[f"{i}.value"])
            averaged.copy_(held[f"{i}.mean"])
            optimiser.state[parameter] = {
                "step": held[f"{i}.step"],
                "exp_avg": held[f"{i}.first"],
                "exp_avg_sq": held[f"{i}.second"],
            }
    return int(metadata["step"]), json.loads(metadata["history"])
