"""R-LACE: the orthogonal projection after which the best linear reader of a concept is worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count, Nonnegative, check_arguments
from concept_probe.find.directions.projection import (
    DIRECTION_ROWS,
    contrast_directions,
    orthogonal_subspace,
    rows_to_fit,
)
from concept_probe.find.rows import ConceptRows, RowQuery
from concept_probe.types import Concept, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class Game:
    """How the game between the reader and the projection is played."""

    rounds: Count = 300
    """Steps of each side, in turn, of gradient descent and ascent."""
    rate: Nonnegative = 0.5
    """Step of the reader, on rows of mean square 1 per entry."""
    push: float = 1.0
    """Step of the projection, likewise; halved by the last round, as the reader's is."""
    decay: float = 1e-2
    """Factor on the reader's squared weights / 2."""
    looks: Count = 10
    """How often along the way the projection is rounded, and a fresh reader is fitted to judge it."""

    def __post_init__(self) -> None:
        check_arguments(self, "game")


@dataclass(frozen=True)
class Played:
    """The outcome of the game."""

    basis: Tensor
    """(d, k) float64, orthonormal: what is projected out"""
    loss: float
    """Mean log-loss of a fresh reader of the rows without it, weighted so that a constant guess has log 2"""


def project_to_fantope(a: Float[Tensor, "d d"], rank: float) -> Float[Tensor, "d d"]:
    """The nearest symmetric matrix with eigenvalues in 0..1 that sum to `rank` (Frobenius norm).

    Eigenvalues γ become clip(γ - θ, 0, 1), with the θ for which they sum to `rank`; eigenvectors stay. The sum falls
    in straight pieces as θ rises, and bends only at γ and γ - 1, so θ lies between two bends and is solved there.
    Raises ValueError for a rank outside 0..d.
    """
    if not 0 <= rank <= len(a):
        raise ValueError(f"rank is {rank}; a matrix of width {len(a)} has a rank in 0..{len(a)}")
    values, vectors = torch.linalg.eigh((a + a.mT) / 2)
    return (vectors * clipped_to_sum(values, rank)) @ vectors.mT


def clipped_to_sum(values: Float[Tensor, "d"], total: float) -> Float[Tensor, "d"]:
    """clip(values - θ, 0, 1) for the θ with which they sum to `total`, which lies in 0..d."""
    bends = torch.cat([values, values - 1]).sort().values
    sums = (values - bends[:, None]).clamp(0, 1).sum(1)  # falls from d to 0
    last = int((sums >= total).sum().clamp(1, len(bends) - 1)) - 1
    run, fall = bends[last + 1] - bends[last], sums[last] - sums[last + 1]
    share = (sums[last] - total) / fall if fall > 0 else torch.zeros_like(fall)
    return (values - bends[last] - share * run).clamp(0, 1)


def fit_rlace(
    x: Float[Tensor, "n d"], labels: Float[Tensor, "n m"], weights: Float[Tensor, "n m"], rank: int, game: Game = Game()
) -> Played:
    """Play the relaxed game min over readers, max over projections of a rank (R-LACE, arXiv 2201.12091).

    There are m readers, logistic regressions of `labels` (0 or 1) from x (1 - P), whose log-losses are summed with
    `weights`. P moves up the loss and is put back into the Fantope (symmetric, eigenvalues in 0..1 that sum to `rank`),
    the convex hull of the projections of that rank. Every few rounds it is rounded to the projection onto its `rank`
    leading eigenvectors, and of these the one that leaves a fresh reader the largest loss is kept; the projection onto
    the leading directions of the readers themselves is the start, and competes too.

    Rows are centred and divided by one number, and worked on in the span of the rows, since P does nothing outside of
    it. Float64, and the same every time. Raises ValueError for a rank below 1 or beyond that of the rows.
    """
    rows = x.detach().double()
    rows = rows - rows.mean(0)
    axes = _span(rows)
    if not 1 <= rank <= axes.shape[1]:
        raise ValueError(
            f"rank is {rank}; these rows span {axes.shape[1]} directions, so it lies in 1..{axes.shape[1]}"
        )
    rows = rows @ axes
    rows = rows / rows.square().mean().sqrt()
    y, w = labels.to(rows), weights.to(rows)
    w = w / w.sum(0) / w.shape[1]
    eye = torch.eye(rows.shape[1]).to(rows)

    def leading(p: Tensor) -> Tensor:
        return torch.linalg.eigh(p).eigenvectors[:, -rank:]

    def judge(basis: Tensor) -> float:
        return _best_reader(rows - (rows @ basis) @ basis.mT, y, w, game.decay)[1]

    reader, _ = _best_reader(rows, y, w, game.decay)
    u = torch.linalg.svd(reader[:-1], full_matrices=False).U[:, :rank]
    p = project_to_fantope(u @ u.mT + 1e-3 * eye, rank)
    best = leading(p)
    loss = judge(best)
    for turn in range(game.rounds):
        fade = 1 - 0.5 * turn / game.rounds
        shown = rows - rows @ p
        error = w * ((shown @ reader[:-1] + reader[-1]).sigmoid() - y)  # gradient of the loss in the logits
        step = torch.cat([shown.mT @ error + game.decay * reader[:-1], error.sum(0, keepdim=True)])
        reader = reader - fade * game.rate * step
        error = w * ((shown @ reader[:-1] + reader[-1]).sigmoid() - y)
        gradient = -rows.mT @ error @ reader[:-1].mT
        p = project_to_fantope(p + fade * game.push * (gradient + gradient.mT) / 2, rank)
        if (turn + 1) % max(1, game.rounds // game.looks) == 0:
            basis = leading(p)
            value = judge(basis)
            if value > loss:
                best, loss = basis, value
    return Played(axes @ best, loss)


def rlace(
    subject: Subject,
    concept: Concept,
    site: Site,
    *,
    rank: int | None = None,
    game: Game = Game(),
    which: RowQuery = DIRECTION_ROWS,
    seed: int = 0,
    rows: tuple[ConceptRows, ConceptRows] | None = None,
) -> Subspace:
    """The directions at `site` without which the concept is hardest to read, orthonormal (R-LACE, arXiv 2201.12091).

    One reader per kind of token, and as many directions as readers unless `rank` says otherwise. Fitted on the fit
    split; `mean` is that of the other prompts, as for `difference_of_means`. `score` is the AUROC of the clearest
    direction on the select split, with shuffled labels as control. See `fit_rlace`, and `difference_of_means` for `which` and `rows`.
    """
    fit, held = rows or rows_to_fit(subject, concept, [site], which)[site]
    labels, weights = _readers(fit)
    basis = fit_rlace(fit.x, labels, weights, labels.shape[1] if rank is None else rank, game).basis
    # Any rotation inside the span takes out the same; this one puts what kinds differ by first, for the scores.
    basis = basis @ torch.linalg.svd(basis.mT @ contrast_directions(fit)).U
    return orthogonal_subspace(subject, concept, site, (fit, held), basis, seed)


def _readers(rows: ConceptRows) -> tuple[Tensor, Tensor]:
    """Per kind of token with both sides (n, m): labels, and weights that count both sides alike, 0 elsewhere."""
    sides = rows.both_sides()
    columns = [own.double() / own.sum() + other.double() / other.sum() for own, other in sides]
    return torch.stack([own.double() for own, _ in sides], 1), torch.stack(columns, 1)


def _span(rows: Tensor) -> Tensor:
    """(d, r): an orthonormal basis of the span of rows (n, d)."""
    _, s, vh = torch.linalg.svd(rows, full_matrices=False)
    return vh[s > 1e-9 * s[:1].clamp_min(torch.finfo(s.dtype).tiny)].mT


def _best_reader(x: Tensor, y: Tensor, w: Tensor, decay: float) -> tuple[Tensor, float]:
    """Weights (d + 1, m) of logistic regressions, biases last, and their weighted log-loss without the penalty."""

    def loss(p: Tensor) -> Tensor:
        logits = x @ p[:-1] + p[-1]
        return (w * F.binary_cross_entropy_with_logits(logits, y, reduction="none")).sum()

    with torch.enable_grad():
        p = torch.zeros(x.shape[1] + 1, y.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
        solver = torch.optim.LBFGS([p], max_iter=50, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            total = loss(p) + decay * p[:-1].square().sum() / 2
            total.backward()
            return total

        solver.step(closure)  # pyright: ignore[reportArgumentType]
    found = p.detach()
    return found, float(loss(found))
