"""Train a TopK autoencoder with AuxK (arXiv 2406.04093); an interrupted run ends in the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from concept_probe.learn.checkpoint import digest
from concept_probe.learn.interop import save_sae
from concept_probe.learn.losses import normalise_rows, remove_radial, sae_loss
from concept_probe.learn.provenance import origin
from concept_probe.learn.sae import Sae
from concept_probe.learn.settings import Step, Store, open_source, settle
from concept_probe.learn.snapshot import read_snapshot, write_snapshot
from concept_probe.learn.start import check, start
from concept_probe.types import Site

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[note]}"),
    TimeRemainingColumn(),
)


def train_sae(
    source: Store | Iterable[Tensor],
    *,
    site: Site | None = None,
    k: int = 16,
    expansion: int = 16,
    samples: int = 2_000_000,
    batch: int = 1024,
    rate: float | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    dead_after: int | None = None,
    auxk: int | None = None,
    save_every: int = 250,
    on_step: Callable[[Step], None] | None = None,
) -> Sae:
    """A sparse autoencoder of `expansion` x d features over one site, k of which fire per row.

    >>> sae = train_sae(capture(subject, prompts, sites=[site]), k=16, expansion=16)

    `source` is a store of activations, or any iterable of (n, d) tensors (then `site` must be given).
    With `folder`, the state is written to folder/training.safetensors every `save_every` steps and the
    result in sae-lens's format beside it; the same call after an interruption goes on from there. An
    iterable must then give the same rows again: those already consumed are skipped.

    `rate` None is 2e-4 / sqrt(f / 2^14); `dead_after` None is a tenth of `samples`, at most 10 million;
    `auxk` None is the power of two nearest to d / 2, and 0 trains without AuxK.

    Raises FloatingPointError, naming the step, for a row or loss that is not finite; ValueError for rows
    of another width, a source that ends early, or a folder that holds another run.
    """
    site, first, batches_from = open_source(source, site, batch, seed)
    if first is None:
        raise ValueError(f"sae over {site}: the source gave no batch of {batch} rows")
    check(first, first.shape[-1], 0, site)
    run = settle(site, first.shape[1], k, expansion, samples, batch, rate, seed, dead_after, auxk)
    sae = start(first, site, k, expansion, seed)
    mark = digest({"first": first})
    made = {"recipe": "concept_probe.train_sae", **asdict(run), "first_batch": mark, "torch": torch.__version__}
    sae.made_by = {**made, **origin(source)}
    parameters = dict(sae.named_parameters())
    optimiser = torch.optim.Adam(parameters.values(), lr=run.rate, betas=(0.9, 0.999), eps=6.25e-10)
    idle = torch.zeros(sae.width, dtype=torch.long, device=first.device)
    snapshot = None if folder is None else Path(folder) / "training.safetensors"
    done = 0
    if snapshot is not None and snapshot.exists():
        done = read_snapshot(snapshot, parameters, optimiser, idle, run, mark)

    sae.requires_grad_(True)
    with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"sae {site}", total=run.steps, completed=done, note="")
        batches = batches_from(done)
        for step in range(done, run.steps):
            x = next(batches, None)
            if x is None:
                got = f"the source ended after {step * batch} rows of the {run.samples} asked for"
                raise ValueError(f"sae over {site}: {got}; lower samples, or repeat the rows")
            check(x, sae.d, step, site)
            for group in optimiser.param_groups:
                group["lr"] = run.rate_at(step)
            loss = sae_loss(sae, x, idle >= run.dead_after, run.auxk)
            fvu, aux = float(loss.fvu.detach()), float(loss.auxk.detach())
            if not math.isfinite(fvu + aux):
                why = "lower the rate, or look at that batch (equal rows have no variance to explain)"
                raise FloatingPointError(f"sae over {site}: loss is {fvu} + {aux}/32 at step {step}; {why}")
            optimiser.zero_grad()
            loss.total.backward()
            remove_radial(sae.W_dec)
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimiser.step()
            normalise_rows(sae.W_dec)
            idle += x.shape[0]
            idle[loss.codes.indices[loss.codes.values > 0]] = 0
            if snapshot is not None and ((step + 1) % save_every == 0 or step + 1 == run.steps):
                write_snapshot(snapshot, parameters, optimiser, idle, run, mark, step + 1)
            if on_step is not None:
                on_step(Step(step, fvu, aux, int((idle >= run.dead_after).sum())))
            progress.update(task, completed=step + 1, note=f"fvu {fvu:.4f}")
    sae.requires_grad_(False)
    sae.zero_grad()
    if folder is not None:
        save_sae(sae, folder)
    return sae
