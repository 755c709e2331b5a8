"""Which columns of a text encoder's MLP output matrices account for a concept: contrast of coefficients x effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.families.text.kinds import NAMED_KINDS, kind_numbers
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.find.vectors.columns import Effect, RankedColumns, hidden_site
from concept_probe.registry import check_choice
from concept_probe.types import FORGET_KINDS, KINDS, Concept, Moment, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


def rank_columns(
    subject: Subject,
    concept: Concept,
    *,
    sites: Sequence[Site] | None = None,
    kinds: Sequence[str] = NAMED_KINDS,
    effect: Effect = "gradient",
    batch: int = 32,
) -> RankedColumns:
    """Judge every column of the text encoders' MLP output matrices by coefficient contrast x direct effect.

    Per list of the concept's prompts (target, paraphrases, implicit) and kind of token, a column's
    contrast is its mean coefficient there minus that on all other prompts; its effect is
    `gradient`: how far a unit of its coefficient moves the concept's readout, which is the text
    encoder's output along the concept's difference of means at that kind of token; `alignment`: its
    component along the concept's change of this MLP's output; `norm`: its length. The score is the
    largest product over lists and kinds. Fit split only.
    """
    check_choice(effect, Effect, "effect")
    weights = list(sites) if sites is not None else list(subject.sites("mlp_value"))
    hidden = [hidden_site(subject, weight) for weight in weights]
    rows = concept_rows(subject, concept, hidden, "fit", RowQuery(kinds))
    gradients = readout_gradients(subject, concept, hidden, kinds, batch) if effect == "gradient" else {}
    places: list[Site] = []
    scores, loads = [], []
    for weight, site in zip(weights, hidden, strict=True):
        columns = subject.matrix(weight).detach().float()
        contrast, groups = coefficient_contrast(rows[site])
        if effect == "gradient":
            product = contrast * torch.stack([gradients[site][group] for group in groups])
        elif effect == "alignment":
            moved = contrast @ columns.mT.to(contrast)
            product = contrast * (torch.nn.functional.normalize(moved, dim=1) @ columns.to(contrast))
        else:
            product = contrast * torch.linalg.vector_norm(columns, dim=0).to(contrast)
        scores.append(product.amax(0))
        loads.append(rows[site].x.abs().mean(0) * torch.linalg.vector_norm(columns, dim=0).to(rows[site].x))
        places += [Site(weight.component, weight.path, "weight", j) for j in range(columns.shape[1])]
    score, load = torch.cat(scores), torch.cat(loads)
    order = score.argsort(descending=True, stable=True)
    return RankedColumns(tuple(places[i] for i in order.tolist()), score[order], load[order], effect)


def coefficient_contrast(rows: ConceptRows) -> tuple[Tensor, list[tuple[int, int]]]:
    """(groups, d) mean of the concept's rows minus the others', and each group's (list of prompts, kind of token)."""
    lines, groups = [], []
    for kind in rows.kind.unique().tolist():
        other = (rows.kind == kind) & ~rows.concept
        if not other.any():
            continue
        base = rows.x[other].mean(0)
        for source in rows.source[rows.concept & (rows.kind == kind)].unique().tolist():
            lines.append(rows.x[(rows.kind == kind) & rows.concept & (rows.source == source)].mean(0) - base)
            groups.append((source, kind))
    if not lines:
        raise ValueError("no kind of token has rows both of the concept and of other prompts")
    return torch.stack(lines), groups


def readout_gradients(
    subject: Subject, concept: Concept, hidden: Sequence[Site], kinds: Sequence[str], batch: int
) -> dict[Site, dict[tuple[int, int], Tensor]]:
    """Per site and (list of prompts, kind of token), the mean gradient (d,) of the readout in each coefficient."""
    outs = subject.sites("text_out")
    wanted = {}
    for site, rows in concept_rows(subject, concept, outs, "fit", RowQuery(kinds)).items():
        contrast, groups = coefficient_contrast(rows)
        wanted[site] = dict(zip(groups, torch.nn.functional.normalize(contrast, dim=1), strict=True))
    names = list(kind_numbers(kinds))
    total: dict[Site, dict[tuple[int, int], Tensor]] = {site: {} for site in hidden}
    for source in FORGET_KINDS:
        prompts = concept.prompts(source, "fit")
        number = KINDS.index(source)
        counts: dict[tuple[Site, int], int] = {}
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            for site, kind, gradient, rows in _batch_gradients(subject, part, hidden, wanted, number, names):
                key = (number, kind)
                total[site][key] = total[site].get(key, 0) + gradient
                counts[site, kind] = counts.get((site, kind), 0) + rows
        for (site, kind), rows in counts.items():
            total[site][number, kind] = total[site][number, kind] / max(rows, 1)
    return total


def _batch_gradients(subject, prompts, hidden, wanted, source, kinds):
    """One batch: (site, kind, summed gradient (d,), rows) for every hidden site and kind of token."""
    seen: dict[Site, tuple[Tensor, Tensor]] = {}
    readout: list[Tensor] = []

    def watch(site: Site):
        def fn(x: Tensor, moment: Moment) -> Tensor:
            leaf = x if x.requires_grad else x.detach().requires_grad_()
            leaf.retain_grad()
            seen[site] = (leaf, _kinds(moment))
            return leaf

        return fn

    def read(site: Site):
        def fn(x: Tensor, moment: Moment) -> None:
            rows = _kinds(moment).to(x.device)
            for kind in kinds:
                direction = wanted[site].get((source, kind))
                if direction is not None:
                    readout.append((x[rows == kind] @ direction.to(x)).sum())

        return fn

    looks = {site: watch(site) for site in hidden} | {site: read(site) for site in wanted}
    with torch.enable_grad(), tap(subject, looks):
        subject.encode(prompts)
        if readout and any(r.requires_grad for r in readout):
            torch.stack([r for r in readout if r.requires_grad]).sum().backward()
    for site, (leaf, rows) in seen.items():
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for kind in kinds:
            here = rows.to(leaf.device) == kind
            yield site, kind, gradient[here].sum(0).float(), int(here.sum())


def _kinds(moment: Moment) -> Tensor:
    if moment.token_kinds is None:
        raise ValueError("this moment has no token kinds, so it is not known which rows carry the concept")
    return moment.token_kinds
