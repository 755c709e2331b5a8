"""Run a subject over prompts and keep what passes its sites."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_probe.activations.columns import COLUMNS
from concept_probe.activations.manifest import prompts_sha256
from concept_probe.activations.rows import CaptureOptions, RowCollector, check_names, chosen_sites, pass_size
from concept_probe.activations.store import Activations, row_of
from concept_probe.activations.writer import StoreWriter
from concept_probe.families.identity import hooks_of_others, how_it_reads
from concept_probe.families.progress import progress
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.tokens import queries_of
from concept_probe.storage import only_writer, text_sha256
from concept_probe.types import Prompt, Query, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


def capture(
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    *,
    roles: Sequence[str] = (),
    sites: Sequence[Site] = (),
    kinds: Sequence[str] | None = None,
    folder: str | Path | None = None,
    sampling: Sampling = SAMPLING,
    options: CaptureOptions = CaptureOptions(),
) -> Activations:
    """Capture rows (n, d) at every site of `roles` and at `sites`, and store them as they come.

    >>> acts = capture(subject, prompts, roles=["text_stream"], kinds=["subject", "eos"])

    Text sites alone run neither the U-Net nor the autoencoder; with others, prompts are sampled (a bare Prompt with
    seed 0) up to the last of `options.steps`. `kinds` are the token kinds to keep where rows are tokens (None: all);
    `folder` None is a temporary folder that lives as long as the store. With sampling, equal prompts share one text
    row, under the first of them. A pass ends after the last site. Positions that only fill a batch up, as a language
    model's padding does, give no rows.

    The same call into the same folder goes on from the last whole shard. Raises UnknownName for an unknown role or
    site, ValueError if the folder holds another capture (or another model's) or another thing, and for a site that is
    not met or gives no row, FolderInUse if another process or thread is writing there, FloatingPointError naming site, prompt
    and step of a value that is not finite (its shard is not written), OSError if the disk is too small.
    """
    queries = queries_of(prompts)
    if not queries:
        raise ValueError("no prompt was given to capture")
    wanted = chosen_sites(subject, roles, sites)
    check_names(kinds, options.branches)
    weights = subject.weight_hash(whole=folder is not None)
    header = _header(subject, weights, wanted, queries, kinds, options)
    if not all(subject.is_text(site) for site in wanted):
        header |= {
            "steps": None if options.steps is None else sorted(set(options.steps)),
            "sampling": _sampled(sampling),
            **_scheduler(subject),
        }
    if subject.reads_forward:
        header["reads_forward"] = True
    if on := subject.state.on():
        header["on"] = on
    if hooks := hooks_of_others(subject):
        header["hooks"] = hooks
    if folder is not None:
        header["reads"] = how_it_reads(subject, schedule=False)
    owner = tempfile.TemporaryDirectory(prefix="concept_probe-") if folder is None else None
    place = Path(owner.name if owner else str(folder))
    with only_writer(place, "a capture"):
        writer = StoreWriter.resume(place, header, wanted, options.shard_rows)
        rows = RowCollector(subject, queries, kinds, options, writer.add, lost="the shard was not written")
        total, before = len(queries), writer.done
        shown = total if total > pass_size(subject, wanted, sampling) else 0
        with subject.state.alone(), progress("prompts captured", shown, before) as count:
            for done in rows.run(wanted, sampling, before) if not writer.complete else ():
                writer.end_batch(done, total)
                count(done - before)
                before = done
    acts = Activations(place, writer.manifest, owner)
    empty = [site for site in wanted if not acts.rows(site)]
    if empty:
        kept = "" if kinds is None else f" of kinds {', '.join(kinds)}"
        raise ValueError(
            f"site {str(empty[0])!r} gave no row{kept} in branch {', '.join(options.branches)}, so there is nothing to learn "
            "from it: keep other kinds, or branches that the guidance runs"
        )
    return acts


def _sampled(sampling: Sampling) -> dict[str, Any]:
    """What decides a trajectory besides its prompt, seed and scheduler."""
    rescale = {"guidance_rescale": sampling.guidance_rescale} if sampling.guidance_rescale else {}
    return {"steps": sampling.steps, "guidance": sampling.guidance, **rescale}


def _scheduler(subject: Subject) -> dict[str, Any]:
    """The pipeline's scheduler, whose settings shape every trajectory and stand in no weight."""
    scheduler = getattr(subject.pipeline, "scheduler", None)
    if scheduler is None:
        return {}
    told = {name: value for name, value in dict(scheduler.config).items() if not name.startswith("_")}
    digest = text_sha256(json.dumps(told, sort_keys=True, default=str))
    return {"scheduler": [type(scheduler).__name__, digest]}


def _header(
    subject: Subject,
    weights: str,
    sites: Sequence[Site],
    queries: Sequence[Query],
    kinds: Sequence[str] | None,
    options: CaptureOptions,
) -> dict[str, Any]:
    asked = [row_of(q) for q in queries]
    return {
        "subject": subject.name,
        "weight_hash": weights,
        "sites": [str(s) for s in sites],
        "dtype": str(options.dtype).removeprefix("torch."),
        "kinds": None if kinds is None else sorted(set(kinds)),
        "branches": sorted(set(options.branches)),
        "columns": list(COLUMNS),
        "prompts_sha256": prompts_sha256(asked),
        "prompts": asked,
        **({"conventions": told} if (told := subject.conventions()) else {}),
    }
