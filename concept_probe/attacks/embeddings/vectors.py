"""Vectors in the place of the token embeddings of a phrase: their start, their place, random ones of the same norms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from concept_probe.activations import tap
from concept_probe.families import Subject
from concept_probe.families.text.tokens import SUBJECT
from concept_probe.types import Moment, Prompt, Site

Vectors = dict[Site, nn.Parameter]
"""Per token-embedding site, what stands in the place of a phrase's tokens, (L, d)."""


def start_vectors(subject: Subject, prompts: tuple[Prompt, ...]) -> Vectors:
    """Per token-embedding site (L, d): the mean embedding of the j-th token of the prompts' subjects."""
    seen: dict[Site, list[tuple[Tensor, Tensor]]] = {site: [] for site in subject.sites("token_embedding")}

    def keep(site: Site) -> Callable[[Tensor, Moment], None]:
        def see(x: Tensor, moment: Moment) -> None:
            where, order = _places(x, moment)
            if where.any():  # a guard may read texts of its own in passing, which name no subject
                seen[site].append((x.detach()[where], order))

        return see

    with torch.no_grad(), tap(subject, {site: keep(site) for site in seen}):
        subject.encode(list(prompts))
    out = {}
    for site, parts in seen.items():
        if not parts:
            raise ValueError(f"{site}: no token of the placeholder was seen at this site")
        rows, order = torch.cat([x for x, _ in parts]), torch.cat([o for _, o in parts])
        mean = [rows[order == j].float().mean(0) for j in range(int(order.max()) + 1)]
        out[site] = nn.Parameter(torch.stack(mean).to(rows.dtype), requires_grad=False)
    return out


@contextlib.contextmanager
def with_vectors(subject: Subject, vectors: Vectors) -> Iterator[None]:
    """`vectors[site]` in place of the subject's token embeddings, in conditional rows; gradients reach the vectors.

    A subject of more tokens than there are vectors repeats the last one.
    """

    def put(site: Site) -> Callable[[Tensor, Moment], Tensor | None]:
        def change(x: Tensor, moment: Moment) -> Tensor | None:
            where, order = _places(x, moment)
            if not where.any():
                return None
            v = vectors[site]
            return x.masked_scatter(where.unsqueeze(-1).expand_as(x), v[order.clamp_max(len(v) - 1)].to(x))

        return change

    with tap(subject, {site: put(site) for site in vectors}):
        yield


def random_like(vectors: Vectors, generator: torch.Generator) -> Vectors:
    """Gaussian directions with the norms of `vectors`."""
    out = {}
    for site, v in vectors.items():
        noise = torch.randn(v.shape, generator=generator).to(v)
        scale = v.detach().norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        out[site] = nn.Parameter(noise * scale, requires_grad=False)
    return out


def _places(x: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
    """Where subject tokens of conditional rows are, bool (b, t), and for each its number within its row's subject."""
    if moment.token_kinds is None:
        raise RuntimeError("the family gave no token kinds at the token embedding, so the placeholder can't be found")
    where = moment.token_kinds.to(x.device) == SUBJECT
    where = where & torch.tensor([b == "cond" for b in moment.branches], device=x.device).unsqueeze(-1)
    return where, (where.long().cumsum(-1) - 1)[where]
