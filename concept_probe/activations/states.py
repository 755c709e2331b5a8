"""What sites give for prompts, in memory: whole texts, one row per prompt, or rows with their columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations.columns import COLUMNS, read_column
from concept_probe.activations.rows import CaptureOptions, RowCollector, check_names, chosen_sites, pass_size
from concept_probe.activations.store import Block
from concept_probe.activations.tap import tap
from concept_probe.families.progress import progress
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.tokens import queries_of
from concept_probe.types import Moment, Prompt, Query, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

Pick = Callable[[Tensor, Moment], Sequence[Tensor] | Tensor]
"""From what a site gave for a batch, (b, ...), to one tensor per row of the batch."""


def whole_texts(x: Float[Tensor, "b t d"], moment: Moment) -> list[Tensor]:
    """Each text's own positions, (t, d): all but those that only fill the batch."""
    if moment.places is None:
        return list(x.clone())
    return [row[read] for row, read in zip(x, (moment.places >= 0).to(x.device), strict=True)]


def tokens_of_kind(kind: int) -> Pick:
    """The positions of one kind of token, (m, d) each: `EOS`, `SUBJECT`, or another of `TOKEN_KINDS` by its number."""

    def pick(x: Tensor, moment: Moment) -> list[Tensor]:
        if moment.token_kinds is None:
            raise RuntimeError("the family gave no token kinds at this site, so tokens of one kind can't be found")
        return [row[chosen] for row, chosen in zip(x, (moment.token_kinds == kind).to(x.device), strict=True)]

    return pick


def read_states(
    subject: Subject, prompts: Sequence[Prompt], sites: Sequence[Site], pick: Pick = whole_texts
) -> dict[Site, Float[Tensor, "n *shape"]]:
    """What `pick` takes of each prompt where its text is read, per site, one under the other.

    >>> read_states(subject, prompts, [site])[site].shape      # (n, t, d)

    Rows are in the order of the prompts, in the site's dtype, and where the subject is. UnknownName for a site that the
    subject lacks; ValueError where `pick` takes tensors of unlike shape, which `read_texts` keeps apart.
    """
    out = {}
    for site, rows in read_texts(subject, prompts, sites, pick).items():
        shapes = sorted({tuple(x.shape) for x in rows})
        if len(shapes) > 1:
            raise ValueError(
                f"site {str(site)!r} gives {shapes[0]} for one prompt and {shapes[1]} for another; use read_texts"
            )
        out[site] = torch.stack(rows)
    return out


@torch.no_grad()
def read_texts(
    subject: Subject, prompts: Sequence[Prompt], sites: Sequence[Site], pick: Pick = whole_texts
) -> dict[Site, tuple[Tensor, ...]]:
    """As `read_states`, one tensor per prompt, (t, d) each: texts may be of any length.

    Where something that is on reads texts of its own in passing, the last pass that met a prompt's number counts.
    """
    found: dict[Site, dict[int, Tensor]] = {site: {} for site in sites}

    def look(site: Site) -> Callable[[Tensor, Moment], None]:
        def see(x: Tensor, moment: Moment) -> None:
            found[site].update(zip(moment.prompts, pick(x.detach(), moment), strict=True))

        return see

    if sites:
        with tap(subject, {site: look(site) for site in sites}):
            subject.encode(list(prompts))
    return {site: tuple(of[i] for i in range(len(prompts))) for site, of in found.items()}


def read_rows(
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    *,
    roles: Sequence[str] = (),
    sites: Sequence[Site] = (),
    kinds: Sequence[str] | None = None,
    sampling: Sampling = SAMPLING,
    options: CaptureOptions = CaptureOptions(),
) -> dict[Site, Block]:
    """The rows that `capture` would store, in its order, without a store; options and errors as there.

    >>> read_rows(subject, prompts, roles=["text_stream"], kinds=["eos"])[site].x.shape      # (n, d)
    """
    queries, wanted = queries_of(prompts), chosen_sites(subject, roles, sites)
    check_names(kinds, options.branches)
    if not queries:
        raise ValueError("no prompt was given to read")
    parts: dict[Site, list[Mapping[str, Tensor]]] = {site: [] for site in wanted}

    def take(site: Site, x: Tensor, columns: Mapping[str, Tensor], start: int) -> None:
        parts[site].append({"x": x, **columns})

    rows = RowCollector(subject, queries, kinds, options, take, lost="no row was kept")
    with progress("prompts read", len(queries) if len(queries) > pass_size(subject, wanted, sampling) else 0) as count:
        done = 0
        for now in rows.run(wanted, sampling):
            count(now - done)
            done = now
    return {site: _block(parts.pop(site), options.dtype) for site in wanted}


def read_site(subject: Subject, site: Site, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Activations (b, t, d) of one pass at a text site, in the graph, and where (b, t) a text is and no filling.

    The pass ends at the site. RuntimeError for a subject that does not say which positions only fill the batch.
    """
    seen: list[tuple[Tensor, Moment]] = []
    with tap(subject, {site: lambda x, m: seen.append((x, m))}), subject.stop_after([site]):
        subject.encode(prompts, batch=len(prompts))
    x, moment = seen[0]
    if moment.places is None:
        raise RuntimeError(f"{subject.name} does not say which positions only fill the batch")
    return x, moment.places >= 0


def _block(parts: Sequence[Mapping[str, Tensor]], dtype: torch.dtype) -> Block:
    if not parts:
        return Block(torch.zeros(0, 0, dtype=dtype), {c: read_column(c, torch.zeros(0)) for c in COLUMNS})
    x = torch.cat([part["x"] for part in parts])
    return Block(x, {c: read_column(c, torch.cat([part[c] for part in parts])) for c in COLUMNS})
