"""A training loop whose result does not depend on how often it was interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    relative: bool = False
    """Whether `peak` is a multiple of each parameter's mean size (root mean square), else AdamW's own step for all."""
    of: str = ""
    """Names what is trained on what: a checkpoint with another name is refused."""


def fit(
    name: str,
    modules: Iterable[nn.Module],
    loss: Callable[[torch.Generator], Tensor],
    schedule: FitSchedule,
    folder: Path,
    enough: Callable[[], bool] | None = None,
) -> list[float]:
    """Minimise `loss` over the parameters of `modules` and leave their weight average in place.

    `loss` draws all its randomness from the generator it is given, so a run that was killed and
    started again gives the weights of an uninterrupted one. A checkpoint is written to
    `folder/name.safetensors` every `schedule.every` steps, and where the run is interrupted; returns the mean loss of
    each stretch. `enough` is asked at the end of each, with the average in place, and may end the run.

    Raises ValueError for a checkpoint that is not `schedule.of`.
    """
    steps = schedule.steps
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    groups = _groups_by_size(parameters, schedule.peak) if schedule.relative else [{"params": parameters}]
    optimiser = torch.optim.AdamW(groups, lr=schedule.peak, weight_decay=schedule.decay, betas=(0.9, 0.99), fused=True)
    peaks = [group["lr"] for group in optimiser.param_groups]
    mean = [p.detach().clone() for p in parameters]
    path, start, history, running, count = folder / f"{name}.safetensors", 0, [], 0.0, 0
    remove_unfinished(folder, path.name)
    if path.exists():
        start, history, running, count, steps = _restore(path, parameters, mean, optimiser, schedule)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[value]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(name, total=steps, completed=start, value=history[-1] if history else math.nan)
        step, whole = start, True
        try:
            while step < steps:
                for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                    group["lr"] = learning_rate(
                        step, schedule.laid_out or schedule.steps, peak, schedule.warmup, schedule.floor
                    )
                value = loss(step_generator(schedule.seed, step))
                value.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                whole = False
                optimiser.step()
                optimiser.zero_grad()
                weight = min(schedule.average, (step + 1) / (step + 10))
                torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - weight)
                running, count, step = running + float(value.detach()), count + 1, step + 1
                whole = True
                if not math.isfinite(running):
                    raise FloatingPointError(
                        f"stage {name!r}: loss is {float(value)} at step {step - 1}; lower the rate"
                    )
                if step % schedule.every == 0 or step == steps:
                    history.append(running / count)
                    running, count = 0.0, 0
                    if enough is not None and step < steps and _asked_of(mean, parameters, enough):
                        steps = step
                    _save(path, parameters, mean, optimiser, _Place(step, history, steps=steps, of=schedule.of))
                    print(f"{name} step {step} loss {history[-1]:.5f}", flush=True)
                progress.update(bar, completed=step, value=history[-1] if history else float(value.detach()))
        except (KeyboardInterrupt, SystemExit):
            if whole and count:
                _save(path, parameters, mean, optimiser, _Place(step, history, running, count, steps, schedule.of))
            raise
    with torch.no_grad():
        for parameter, averaged in zip(parameters, mean, strict=True):
            parameter.copy_(averaged)
    return history


def _groups_by_size(parameters: Sequence[nn.Parameter], rate: float) -> list[dict[str, Any]]:
    """A group per parameter, which moves by `rate` times its root mean square per step; as erasers are trained."""
    sizes = [float(p.detach().float().square().mean().sqrt()) for p in parameters]
    floor = 1e-2 * max(sizes)
    return [{"params": [p], "lr": rate * max(size, floor)} for p, size in zip(parameters, sizes, strict=True)]


@torch.no_grad()
def _asked_of(mean: list[Tensor], parameters: list[nn.Parameter], enough: Callable[[], bool]) -> bool:
    """`enough` with the average in place of the parameters."""
    own = [p.data for p in parameters]
    try:
        for p, averaged in zip(parameters, mean, strict=True):
            p.data = averaged
        return enough()
    finally:
        for p, x in zip(parameters, own, strict=True):
            p.data = x


@dataclass(frozen=True)
class _Place:
    """Where a run is."""

    step: int
    history: list[float]
    running: float = 0.0
    """Sum of the losses since the last stretch ended ..."""
    count: int = 0
    """... and how many they are."""
    steps: int = 0
    """After how many it ends."""
    of: str = ""


def _save(path, parameters, mean, optimiser, at: _Place) -> None:
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
    write_sealed(path, tensors, {name: json.dumps(x) for name, x in asdict(at).items()})


def _restore(path, parameters, mean, optimiser, schedule) -> tuple[int, list[float], float, int, int]:
    """Step, history, running, count, and at how many steps it ends. Checkpoints of before hold the first two."""
    held, metadata = read_tensors(path, "delete it to train this stage from the start", sealed=True)
    at = _Place(**{n: json.loads(metadata[n]) for n in _Place.__dataclass_fields__ if n in metadata})
    if at.of != schedule.of:
        raise ValueError(
            f"{path} is a checkpoint of {at.of or 'an earlier recipe, which does not say of what'}, and "
            f"{schedule.of or 'the earlier recipe'} was asked for; give another folder, or delete it to start anew"
        )
    with torch.no_grad():
        for i, (parameter, averaged) in enumerate(zip(parameters, mean, strict=True)):
            parameter.copy_(held[f"{i}.value"])
            averaged.copy_(held[f"{i}.mean"])
            optimiser.state[parameter] = {
                "step": held[f"{i}.step"],
                "exp_avg": held[f"{i}.first"],
                "exp_avg_sq": held[f"{i}.second"],
            }
    return at.step, at.history, at.running, at.count, at.steps if schedule.of else schedule.steps
