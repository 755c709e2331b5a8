"""Train sparse autoencoders (arXiv 2406.04093); an interrupted run ends in the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from concept_probe.arguments import Count, checked_argument
from concept_probe.learn.interop import save_sae, save_transcoder
from concept_probe.learn.sae import Sae
from concept_probe.learn.train.learner import Learner
from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.seen_prompts import source_provenance
from concept_probe.learn.train.settings import PassOptions, Run, TrainingOptions, TrainingStep, settle
from concept_probe.learn.train.snapshot import read_snapshot, write_snapshot
from concept_probe.learn.train.source import RowsBySite, Source, only_site, open_source
from concept_probe.learn.transcoder import Transcoder
from concept_probe.storage import content_sha256, inside, only_writer
from concept_probe.types import Site

SAMPLES = 2_000_000
"""Rows that are learned from unless another number is given."""
_PROGRESS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[note]}", markup=False),
    TimeRemainingColumn(),
)


def train_sae(
    source: Source,
    *,
    site: Site | None = None,
    k: int = 16,
    expansion: int = 16,
    samples: int = SAMPLES,
    folder: str | Path | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
    options: TrainingOptions = TrainingOptions(),
) -> Sae:
    """A sparse autoencoder of `expansion` x d features over one site, k of which fire per row.

    >>> sae = train_sae(capture(subject, prompts, sites=[site]), k=16, expansion=16)

    `source` is a store of activations, any iterable of (n, d) tensors (then `site` must be given), or any iterable
    of {site: (n, d)}; `samples` of its rows are learned from, in whole batches.

    With `folder`, the state is written to folder/training.safetensors every `options.save_every` steps and the
    result in sae-lens's format beside it; the same call after an interruption goes on from there. An
    iterable must then give the same rows again: those already consumed are skipped.

    Where torch.distributed is initialised, its processes train together, as `options.split` says (see `Team`). Every
    process must be given the same batches, and returns the whole.

    Raises FloatingPointError, naming the step, for a row or loss that is not finite; ValueError for rows
    of another width, a source that ends early, or a folder that holds another run or another thing; CorruptFile for a
    state that was cut or altered; FolderInUse where another process or thread trains into the folder.
    """
    checked_argument(options, TrainingOptions, "options")
    runs = {"": options.run(site, None, k, expansion)}
    made = _train(source, runs, samples, None if folder is None else Path(folder), on_step, options)[""]
    assert isinstance(made, Sae), "without a target site the result is an autoencoder"
    return made


def train_transcoder(
    source: Source,
    sites: tuple[Site, Site],
    *,
    k: int = 16,
    expansion: int = 16,
    samples: int = SAMPLES,
    folder: str | Path | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
    options: TrainingOptions = TrainingOptions(),
) -> Transcoder:
    """A transcoder (arXiv 2406.11944): codes of one site, of `expansion` x d features, write the same rows of another.

    >>> train_transcoder(capture(subject, prompts, sites=[reads, writes]), (reads, writes))

    `sites` are the one that is read and the one that is written. `source` gives rows of both: a store, or any iterable
    of {site: (n, d)}. The rest is as in `train_sae`. ValueError where the two are one site, or a store's rows of them
    are not the same.
    """
    reads, writes = sites
    if writes == reads:
        raise ValueError(f"target is {writes}, the site itself; train_sae trains an autoencoder over one site")
    checked_argument(options, TrainingOptions, "options")
    runs = {"": options.run(reads, writes, k, expansion)}
    made = _train(source, runs, samples, None if folder is None else Path(folder), on_step, options)[""]
    assert isinstance(made, Transcoder), "with a target site the result is a transcoder"
    return made


def train_saes(
    source: Source,
    runs: Mapping[str, Run],
    *,
    samples: int = SAMPLES,
    folder: str | Path | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
    options: PassOptions = PassOptions(),
) -> dict[str, Sae | Transcoder]:
    """Several autoencoders (other k, widths, seeds, sites) on one pass over the activations, by name.

    >>> train_saes(acts, {f"k{k}": Run(site, k=k) for k in (16, 32, 64)}, folder="sweep")

    Each ends in the bits that `train_sae` gives it alone with the same rows; `options.seed` names the order of a store's
    rows, `Run.seed` the start. With `folder`, each is kept in a folder of its name there, and a
    name that leads out of it is refused. The rest is as in `train_sae`.
    """
    if not runs:
        raise ValueError("no run was given; pass runs={'name': Run(...)}")
    for name, run in runs.items():
        checked_argument(name, str, "the name of a run")
        checked_argument(run, Run, f"run {name!r}")
    return _train(source, runs, samples, None if folder is None else Path(folder), on_step, options)


def _train(
    source: Source,
    runs: Mapping[str, Run],
    samples: int,
    folder: Path | None,
    on_step: Callable[[TrainingStep], None] | None,
    options: PassOptions,
) -> dict[str, Sae | Transcoder]:
    samples = checked_argument(samples, Count, "samples")
    if on_step is not None and not callable(on_step):
        raise TypeError(f"on_step is a {type(on_step).__name__}; it is a function of a TrainingStep, or None")
    team = Team.here(options.split)
    kept = {} if folder is None else {n: inside(folder, n, "the run") if n else folder for n in runs}
    with ExitStack() as writers:
        for place in kept.values() if team.leads else ():
            writers.enter_context(only_writer(place, "an autoencoder"))
        return _trained(source, runs, samples, kept, on_step, options, team)


def _trained(
    source: Source,
    runs: Mapping[str, Run],
    samples: int,
    kept: Mapping[str, Path],
    on_step: Callable[[TrainingStep], None] | None,
    options: PassOptions,
    team: Team,
) -> dict[str, Sae | Transcoder]:
    """What `_train` gives, each run kept in its folder of `kept`, if it has any."""
    batch = options.batch
    places = {name: _places(source, run) for name, run in runs.items()}
    sites = tuple(dict.fromkeys(site for pair in places.values() for site in pair))
    paired = tuple(dict.fromkeys(site for pair in places.values() if pair[0] != pair[1] for site in pair))
    first, batches_from = open_source(source, sites, batch, options.seed, paired)
    if first is None:
        raise ValueError(f"sae over {sites[0]}: the source gave no batch of {batch} rows")
    learners, done, marks = {}, {}, {}
    for name, run in runs.items():
        site, target = places[name]
        learners[name] = Learner(settle(run, site, target, first[site].shape[-1], samples, batch), first, team)
        marks[name] = content_sha256(
            {"first": first[site]} if site == target else {"first": first[site], "to": first[target]}
        )
        done[name] = 0 if not kept else read_snapshot(kept[name], learners[name], marks[name])
    steps = samples // batch
    with _progress(team) as progress:
        task = progress.add_task(_title(sites, runs), total=steps, completed=min(done.values()), note="")
        with closing(batches_from(min(done.values()))) as batches:  # a live source lets go of its subject
            for number in range(min(done.values()), steps):
                rows = _next(batches, number, sites[0], batch, samples)
                for name, learner in learners.items():
                    if number < done[name]:
                        continue
                    step = learner.step(rows, number)
                    if kept and ((number + 1) % options.save_every == 0 or number + 1 == steps):
                        write_snapshot(kept[name], learner, marks[name], number + 1)
                    if on_step is not None:
                        on_step(TrainingStep(step.step, step.fvu, step.auxk, step.dead, name))
                    progress.update(task, note=f"{name} fvu {step.fvu:.4f}".strip())
                progress.update(task, completed=number + 1)
    made = {"recipe": "concept_probe.train_sae", "torch": torch.__version__, **source_provenance(source)}
    results = {name: one.result({**made, "first_batch": marks[name]}) for name, one in learners.items()}
    if kept and team.leads:
        for name, sae in results.items():
            if isinstance(sae, Sae):
                save_sae(sae, kept[name])
            else:
                save_transcoder(sae, kept[name])
    team.wait()
    return results


def _places(source: Source, run: Run) -> tuple[Site, Site]:
    site = only_site(source, run.site)
    return site, site if run.target is None else only_site(source, run.target)


def _progress(team: Team) -> Progress:
    return Progress(*_PROGRESS, console=Console(stderr=True), transient=True, disable=not team.leads)


def _title(sites: tuple[Site, ...], runs: Mapping[str, Run]) -> str:
    return f"sae {sites[0]}" if len(runs) == 1 else f"{len(runs)} saes over {len(sites)} sites"


def _next(batches: Iterator[RowsBySite], number: int, site: Site, batch: int, samples: int) -> RowsBySite:
    rows = next(batches, None)
    if rows is None:
        got = f"the source ended after {number * batch} rows of the {samples // batch * batch} asked for"
        raise ValueError(f"sae over {site}: {got}; lower samples, or repeat the rows")
    return rows
