"""Run a subject over prompts and keep what passes its sites."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from concept_probe.activations.rows import TEXT_BATCH, RowCollector, check_names, chosen_sites
from concept_probe.activations.store import Activations, row_of
from concept_probe.activations.tap import tap
from concept_probe.activations.writer import StoreWriter
from concept_probe.families.progress import progress
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.tokens import queries_of
from concept_probe.storage import text_sha256
from concept_probe.types import Branch, Prompt, Query, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

CPU = torch.device("cpu")  # the store is on disk


def capture(
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    *,
    roles: Sequence[str] = (),
    sites: Sequence[Site] = (),
    folder: str | Path | None = None,
    sampling: Sampling = SAMPLING,
    steps: Sequence[int] | None = None,
    kinds: Sequence[str] | None = None,
    branches: Sequence[Branch] = ("cond",),
    dtype: torch.dtype = torch.float32,
    shard_rows: int = 65536,
) -> Activations:
    """Capture rows (n, d) at every site of `roles` and at `sites`, and store them as they come.

    >>> acts = capture(subject, prompts, roles=["text_stream"], kinds=["subject", "eos"])

    Text sites alone run neither the U-Net nor the autoencoder; with others, prompts are sampled (a bare Prompt with
    seed 0) up to the last of `steps` (None: all of `sampling.steps`). `kinds` are the token kinds to keep where rows
    are tokens, `branches` those of guidance; `folder` None is a temporary folder that lives as long as the store.
    With sampling, equal prompts share one text row, under the first of them. A pass ends after the last site.
    Positions that only fill a batch up, as a language model's padding does, give no rows.

    The same call into the same folder goes on from the last whole shard. Raises UnknownName for an unknown role or
    site, ValueError if the folder holds another capture (or another model's), FloatingPointError naming site, prompt
    and step of a value that is not finite (its shard is not written), OSError if the disk is too small.
    """
    queries = queries_of(prompts)
    if not queries:
        raise ValueError("no prompt was given to capture")
    wanted = chosen_sites(subject, roles, sites)
    check_names(kinds, branches)
    text_only = all(subject.is_text(site) for site in wanted)
    header = _header(subject, wanted, queries, dtype, kinds, branches)
    if not text_only:
        header |= {
            "steps": None if steps is None else sorted(set(steps)),
            "sampling": {"steps": sampling.steps, "guidance": sampling.guidance},
        }
    owner = tempfile.TemporaryDirectory(prefix="concept_probe-") if folder is None else None
    place = Path(owner.name if owner else str(folder))
    writer = StoreWriter.resume(place, header, wanted, shard_rows)
    batch = TEXT_BATCH if text_only else sampling.batch
    total = len(queries)
    lost = "the shard was not written"
    keep = RowCollector(subject, queries, range(total), steps, kinds, branches, dtype, CPU, writer.add, lost)
    with progress("prompts captured", total if total > batch else 0, writer.done) as count:
        for start in range(writer.done, total, batch) if not writer.complete else ():
            part = queries[start : start + batch]
            with tap(subject, keep.looks(wanted, start)):
                subject.run_to(wanted, part, sampling, steps)
            writer.end_batch(start + len(part), total)
            count(len(part))
    return Activations(place, writer.manifest, owner)


def _header(
    subject: Subject,
    sites: Sequence[Site],
    queries: Sequence[Query],
    dtype: torch.dtype,
    kinds: Sequence[str] | None,
    branches: Sequence[Branch],
) -> dict[str, Any]:
    asked = [row_of(q) for q in queries]
    return {
        "subject": subject.name,
        "weight_hash": subject.weight_hash(),
        "sites": [str(s) for s in sites],
        "dtype": str(dtype).removeprefix("torch."),
        "kinds": None if kinds is None else sorted(set(kinds)),
        "branches": sorted(set(branches)),
        "prompts_sha256": text_sha256(json.dumps(asked)),
        "prompts": asked,
    }
