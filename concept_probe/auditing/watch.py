"""Taps that look on while an arm answers: activations of the denoiser, and features that fire."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.auditing.places import Places
from concept_probe.auditing.states import at_end
from concept_probe.find.layout import after_first, last
from concept_probe.types import BOS, Moment, Prompt, Query, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

See = Callable[[Tensor, Moment], None]


class Watching:
    """What is seen in one arm, query by query, however the queries are batched."""

    def __init__(self, subject: Subject, places: Places) -> None:
        self.subject, self.places = subject, places
        self._inner: dict[tuple[Site, int], dict[int, Tensor]] = defaultdict(dict)
        self._firing: list[dict[int, Tensor]] = [{} for _ in places.features]

    def on(self, start: int) -> AbstractContextManager[Any]:
        """Look on while a batch of queries is answered, the first of which is query `start`."""
        fns: dict[Site, list[See]] = defaultdict(list)
        for site in self.places.inner:
            fns[site].append(self._see_inner(site, start))
        for subspace, out in zip(self.places.features, self._firing, strict=True):
            fns[subspace.site].append(self._see_features(subspace, out, start))

        def all_of(several: list[See]) -> See:
            def see(x: Tensor, moment: Moment) -> None:
                for fn in several:
                    fn(x, moment)

            return see

        return tap(self.subject, {site: all_of(several) for site, several in fns.items()})

    def inner(self, queries: int) -> dict[tuple[Site, int], Tensor]:
        """Per (site, step), float32 (queries, d): means over patches, or the end token's activation."""
        return {key: torch.stack([found[i] for i in range(queries)]) for key, found in self._inner.items()}

    def firing(self, queries: int) -> tuple[Tensor, ...]:
        """Per watched subspace, (queries, k): the largest activation of each feature anywhere in a query."""
        return tuple(torch.stack([found[i] for i in range(queries)]) for found in self._firing)

    def fill_in(self, batch: Sequence[Query], start: int) -> None:
        """Equal prompts of a batch share a pass through the text encoders, whose moment names the first of them: the
        rest fire as it does."""
        for rows in self._firing:
            first: dict[Prompt, int] = {}
            for i, query in enumerate(batch, start):
                at = first.setdefault(query.prompt, i)
                if i not in rows:
                    rows[i] = rows[at]

    def _see_inner(self, site: Site, start: int) -> See:
        tokens = self.subject.axis(site) == "token"

        def see(x: Tensor, moment: Moment) -> None:
            if moment.step not in self.places.steps:
                return
            rows = last(x.detach())
            pooled = at_end(rows, moment) if tokens else rows.float().flatten(1, -2).mean(1).to("cpu")
            for i, branch, row in zip(moment.prompts, moment.branches, pooled, strict=True):
                if branch == "cond":
                    self._inner[site, moment.step or 0][start + i] = row

        return see

    def _see_features(self, subspace: Subspace, out: dict[int, Tensor], start: int) -> See:
        codec, chosen = subspace.codec, torch.tensor(subspace.features)
        assert codec is not None  # for the type checker: only subspaces with a codec are watched
        tokens = self.subject.axis(subspace.site) == "token"

        def see(x: Tensor, moment: Moment) -> None:
            if moment.nested:
                return  # a guard reads a text of its own
            if moment.step is not None and moment.places is not None:
                return  # what the model writes itself differs from arm to arm; the prompt is the same
            rows = last(x.detach())
            flat = rows.reshape(len(rows), -1, rows.shape[-1])
            codes = codec.encode(flat.to(codec.decoder)).dense(codec.width)
            codes = codes[..., chosen.to(codes.device)].float()
            if tokens and moment.token_kinds is not None:
                codes = codes * (moment.token_kinds != BOS).to(codes).unsqueeze(-1)
            later = after_first(flat, moment)
            if later is not None:
                codes = codes * later.to(codes)
            for i, branch, row in zip(moment.prompts, moment.branches, codes.amax(1).to("cpu"), strict=True):
                if branch == "cond":
                    before = out.get(start + i)
                    out[start + i] = row if before is None else torch.maximum(before, row)

        return see
