"""Run a subject over prompts and keep what passes its sites."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.capture.activations import COLUMNS, Activations
from concept_probe.capture.tap import tap
from concept_probe.capture.writer import Writer
from concept_probe.families.progress import progress
from concept_probe.families.subject import SAMPLING
from concept_probe.families.tokens import queries_of
from concept_probe.registry import UnknownName
from concept_probe.types import BRANCHES, TOKEN_KINDS, Branch, Moment, Prompt, Query, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

TEXT_BATCH = 64


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

    The same call into the same folder goes on from the last whole shard. Raises UnknownName for an unknown role or
    site, ValueError if the folder holds another capture (or another model's), FloatingPointError naming site, prompt
    and step of a value that is not finite (its shard is not written), OSError if the disk is too small.
    """
    queries = queries_of(prompts)
    if not queries:
        raise ValueError("no prompt was given to capture")
    wanted = tuple(dict.fromkeys((*(s for role in roles for s in subject.sites(role)), *sites)))
    if not wanted:
        raise ValueError(f"no site was given to capture; name roles ({', '.join(subject.roles())}) or sites")
    for site in wanted:
        subject.module(site)
    for what, given, known in (("token kind", kinds or (), TOKEN_KINDS), ("branch", branches, BRANCHES)):
        for name in given:
            if name not in known:
                raise UnknownName(what, name, known)
    text_only = all(subject.is_text(site) for site in wanted)
    header = _header(subject, wanted, queries, dtype, kinds, branches)
    if not text_only:
        header |= {
            "steps": None if steps is None else sorted(set(steps)),
            "sampling": {"steps": sampling.steps, "guidance": sampling.guidance},
        }
    owner = tempfile.TemporaryDirectory(prefix="concept_probe-") if folder is None else None
    place = Path(owner.name if owner else str(folder))
    writer = Writer.resume(place, header, wanted, shard_rows)
    batch = TEXT_BATCH if text_only else sampling.batch
    keep = _Keep(subject, writer, queries, steps, kinds, branches, dtype)
    total = len(queries)
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
    asked = [[q.prompt.text, q.prompt.subject, q.prompt.label, q.seed] for q in queries]
    return {
        "subject": subject.name,
        "weight_hash": subject.weight_hash(),
        "sites": [str(s) for s in sites],
        "dtype": str(dtype).removeprefix("torch."),
        "kinds": None if kinds is None else sorted(set(kinds)),
        "branches": sorted(set(branches)),
        "prompts_sha256": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
        "prompts": asked,
    }


class _Keep:
    """Turns the tensors of a pass into rows with their columns, and hands them to a writer."""

    def __init__(
        self,
        subject: Subject,
        writer: Writer,
        queries: Sequence[Query],
        steps: Sequence[int] | None,
        kinds: Sequence[str] | None,
        branches: Sequence[Branch],
        dtype: torch.dtype,
    ) -> None:
        self.subject = subject
        self.writer = writer
        self.queries = queries
        self.steps = None if steps is None else frozenset(steps)
        self.kinds = None if kinds is None else torch.tensor([TOKEN_KINDS.index(k) for k in kinds])
        self.branches = frozenset(branches)
        self.dtype = dtype

    def looks(self, sites: Sequence[Site], start: int) -> dict[Site, Any]:
        """One look per site, for the batch whose first prompt is number `start`."""

        def at(site: Site) -> Any:
            return lambda x, moment: self._take(site, x, moment, start)

        return {site: at(site) for site in sites}

    def _take(self, site: Site, x: Tensor, moment: Moment, start: int) -> None:
        if self.steps is not None and moment.step is not None and moment.step not in self.steps:
            return
        # The empty prompt (row -1) passes the text encoders once per batch; it is kept once.
        kept = [
            i
            for i, (prompt, branch) in enumerate(zip(moment.prompts, moment.branches, strict=True))
            if branch in self.branches and (prompt >= 0 or start == 0)
        ]
        if not kept:
            return
        x, columns = self._rows(site, x.detach(), moment, torch.tensor(kept), start)
        finite = torch.isfinite(x).all(-1)
        if not bool(finite.all()):
            self._refuse(site, columns, int((~finite).nonzero()[0]))
        self.writer.add(site, x, columns, done=start)

    def _rows(
        self, site: Site, x: Tensor, moment: Moment, kept: Tensor, start: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x (b, c, h, w), (b, a, d) or (b, d) -> rows (n, d) of the kept batch rows, with their columns."""
        x = x[kept.to(x.device)]
        if x.ndim == 4:
            x = x.flatten(2).mT
        single = x.ndim == 2
        x = x[:, None] if single else x
        if x.ndim != 3:
            raise ValueError(
                f"site {str(site)!r} gives shape {tuple(x.shape)}; rows need (b, d), (b, a, d) or (b, c, h, w)"
            )
        b, a, _ = x.shape
        asked = torch.tensor(moment.prompts)[kept]
        blank = torch.full((b, a), -1)
        place = torch.arange(a).expand(b, a)
        axis = None if single else self.subject.axis(site)
        kinds = blank
        if axis == "token" and moment.token_kinds is not None:
            kinds = moment.token_kinds.to(kept.device)[kept]
        grid = {
            "prompt": torch.where(asked < 0, asked, asked + start)[:, None].expand(b, a),
            "token": place if axis == "token" else blank,
            "kind": kinds,
            "step": torch.full((b, a), -1 if moment.step is None else moment.step),
            "branch": torch.tensor([BRANCHES.index(moment.branches[i]) for i in kept.tolist()])[:, None].expand(b, a),
            "patch": place if axis == "patch" else blank,
        }
        chosen = torch.ones(b, a, dtype=torch.bool)
        if axis == "token" and self.kinds is not None:
            chosen = torch.isin(kinds, self.kinds)
        rows = x[chosen.to(x.device)].to(device="cpu", dtype=self.dtype)  # the store is on disk
        return rows, {c: grid[c][chosen].to(torch.int32) for c in COLUMNS}

    def _refuse(self, site: Site, columns: dict[str, Tensor], row: int) -> None:
        at = {c: int(v[row]) for c, v in columns.items()}
        prompt = self.queries[at["prompt"]].prompt.text if at["prompt"] >= 0 else ""
        step = "the text encoder" if at["step"] < 0 else f"step {at['step']}"
        where = f", token {at['token']}" if at["token"] >= 0 else f", patch {at['patch']}" if at["patch"] >= 0 else ""
        raise FloatingPointError(
            f"a value at site {str(site)!r} is not finite: prompt {at['prompt']} {prompt!r}, {step}, branch "
            f"{BRANCHES[at['branch']]}{where}; the shard was not written; check the weights, or run in float32"
        )
