"""Concept vectors: columns of a text encoder's MLP output matrix, and text directions that cross-attention reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.families.text.kinds import NAMED_KINDS, kind_numbers
from concept_probe.find.directions.means import DIRECTION_KINDS, fit_oblique
from concept_probe.find.rows import Rows, concept_rows, gather_prompts
from concept_probe.types import BOS, FORGET_KINDS, KINDS, OTHER_KINDS, Concept, Kind, Moment, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

Effect = Literal["gradient", "alignment", "norm"]
Judged = Effect | Literal["reading", "attribution", "odds"]


@dataclass(frozen=True)
class RankedColumns:
    """Columns of MLP output matrices, best first, and how each was judged."""

    sites: tuple[Site, ...]
    """(m,) weight sites with `item` set to the column"""
    scores: Tensor
    """(m,) how much of the concept's readout the column accounts for"""
    load: Tensor
    """(m,) mean |coefficient| x norm of the column over all prompts: what random columns are matched on"""
    effect: Judged
    """How the columns were judged; those beyond `Effect` are of language models, see `find.lm_ranking`"""

    def by_layer(self, chosen: Sequence[int]) -> dict[Site, list[int]]:
        """Weight site (without item) -> columns, for chosen places in the ranking."""
        out: dict[Site, list[int]] = {}
        for i in chosen:
            site = self.sites[i]
            out.setdefault(whole(site), []).append(site.item or 0)
        return out

    def matched(self, chosen: Sequence[int], generator: torch.Generator, *, pool: int = 4) -> list[int]:
        """As many other columns of the same layers: for each chosen one, one of the `pool` nearest in load."""
        taken = set(chosen)
        layers = {(self.sites[i].component, self.sites[i].path): list[int]() for i in chosen}
        for j, site in enumerate(self.sites):
            if (site.component, site.path) in layers:
                layers[site.component, site.path].append(j)
        out = []
        for i in chosen:
            free = [j for j in layers[self.sites[i].component, self.sites[i].path] if j not in taken]
            if not free:
                raise ValueError(f"{whole(self.sites[i])} has no columns left to compare with; ask for fewer columns")
            gaps = (self.load[free] - self.load[i]).abs()
            near = gaps.topk(min(pool, len(free)), largest=False).indices
            pick = free[int(near[int(torch.randint(len(near), (1,), generator=generator))])]
            taken.add(pick)
            out.append(pick)
        return out


def whole(site: Site) -> Site:
    """The site of the matrix that a column's site is part of."""
    return Site(site.component, site.path, site.side)


def hidden_site(subject: Subject, weight: Site) -> Site:
    """The site whose values are the coefficients of the columns of MLP output matrix `weight`."""
    wanted = Site(weight.component, weight.path, "in")
    if any(wanted in subject.sites(role) for role in subject.roles()):
        return wanted
    raise ValueError(f"{weight} has no site that feeds it: {wanted} has no role in {subject.name}")


def zero_columns(subject: Subject, columns: Mapping[Site, Sequence[int]]):
    """Context manager: the subject as if these columns of its MLP output matrices were zero."""

    def silence(items: Sequence[int]):
        mask = torch.tensor(list(items))

        def fn(x: Tensor, moment: Moment) -> Tensor:
            return x.index_fill(-1, mask.to(x.device), 0)

        return fn

    return tap(subject, {hidden_site(subject, site): silence(items) for site, items in columns.items()})


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
    if effect not in ("gradient", "alignment", "norm"):
        raise ValueError(f"effect is {effect!r}; it is 'gradient', 'alignment' or 'norm'")
    weights = list(sites) if sites is not None else list(subject.sites("mlp_value"))
    hidden = [hidden_site(subject, weight) for weight in weights]
    rows = concept_rows(subject, concept, hidden, "fit", kinds=kinds)
    slopes = _readout_slopes(subject, concept, hidden, kinds, batch) if effect == "gradient" else {}
    places: list[Site] = []
    scores, loads = [], []
    for weight, site in zip(weights, hidden, strict=True):
        columns = subject.parameter(weight).detach().float()
        contrast, groups = _coefficient_contrast(rows[site])
        if effect == "gradient":
            product = contrast * torch.stack([slopes[site][group] for group in groups])
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


def _coefficient_contrast(rows: Rows) -> tuple[Tensor, list[tuple[int, int]]]:
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


def _readout_slopes(
    subject: Subject, concept: Concept, hidden: Sequence[Site], kinds: Sequence[str], batch: int
) -> dict[Site, dict[tuple[int, int], Tensor]]:
    """Per site and (list of prompts, kind of token), the mean slope (d,) of the readout in each coefficient."""
    outs = subject.sites("text_out")
    wanted = {}
    for site, rows in concept_rows(subject, concept, outs, "fit", kinds=kinds).items():
        contrast, groups = _coefficient_contrast(rows)
        wanted[site] = dict(zip(groups, torch.nn.functional.normalize(contrast, dim=1), strict=True))
    names = list(kind_numbers(kinds))
    total: dict[Site, dict[tuple[int, int], Tensor]] = {site: {} for site in hidden}
    for source in FORGET_KINDS:
        prompts = concept.prompts(source, "fit")
        number = KINDS.index(source)
        counts: dict[tuple[Site, int], int] = {}
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            for site, kind, slope, rows in _slopes(subject, part, hidden, wanted, number, names):
                key = (number, kind)
                total[site][key] = total[site].get(key, 0) + slope
                counts[site, kind] = counts.get((site, kind), 0) + rows
        for (site, kind), rows in counts.items():
            total[site][number, kind] = total[site][number, kind] / max(rows, 1)
    return total


def _slopes(subject, prompts, hidden, wanted, source, kinds):
    """One batch: (site, kind, summed slope (d,), rows) for every hidden site and kind of token."""
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
        slope = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for kind in kinds:
            here = rows.to(leaf.device) == kind
            yield site, kind, slope[here].sum(0).float(), int(here.sum())


def _kinds(moment: Moment) -> Tensor:
    if moment.token_kinds is None:
        raise ValueError("this moment has no token kinds, so it is not known which rows carry the concept")
    return moment.token_kinds


@dataclass(frozen=True)
class TextDirections:
    """Directions in the text states that cross-attention reads, strongest first."""

    basis: Tensor
    """(d, m) float64: the concept's mean state minus the others', per list of prompts and kind of token"""
    others: Tensor
    """(n, d) float64: states of the other prompts, which a removal should leave alone"""
    names: tuple[str, ...]
    """What each column is: `target/subject`, `implicit/eos`, ..."""

    def removal(self, count: int):
        """The projection x - D Eᵀ x for the `count` strongest directions; see `find.directions.fit_oblique`."""
        return fit_oblique(self.basis[:, :count], self.others)


def text_directions(
    subject: Subject,
    concept: Concept,
    *,
    kinds: Sequence[str] = DIRECTION_KINDS,
    own: Sequence[Kind] = FORGET_KINDS,
    against: Sequence[Kind] = OTHER_KINDS,
) -> TextDirections:
    """Concept directions in `subject.encode(...).states`, in which both encoders of a pair are concatenated.

    Each next direction is the one that adds most to those before (pivoted Gram-Schmidt), and one
    that adds less than 5 % of its length is left out: a removal of nearly parallel directions would
    have to divide by nearly nothing.
    """
    chosen = gather_prompts(concept, "fit", (*own, *against))
    prompts = [prompt for _, prompt in chosen]
    with torch.no_grad():
        states = subject.encode(prompts).states.double()
    token_kinds = subject.tokenise(prompts).kinds.to(states.device)
    owned = torch.tensor([KINDS.index(source) if source in own else -1 for source, _ in chosen], device=states.device)
    named = token_kinds != BOS
    columns, names = [], []
    for source in own:
        for kind, number in zip(kinds, kind_numbers(kinds), strict=True):
            here = token_kinds == number
            mine, rest = here & (owned == KINDS.index(source))[:, None], here & (owned < 0)[:, None]
            if mine.any() and rest.any():
                columns.append(states[mine].mean(0) - states[rest].mean(0))
                names.append(f"{source}/{kind}")
    if not columns:
        asked = ", ".join(kinds)
        raise ValueError(f"concept {concept.name!r}: no token among {asked} has both sides on the fit split")
    order = _pivots(torch.stack(columns, 1))
    basis = torch.stack([columns[i] for i in order], 1)
    return TextDirections(basis, states[named & (owned < 0)[:, None]], tuple(names[i] for i in order))


def _pivots(x: Tensor, *, share: float = 0.05) -> list[int]:
    """Columns of x (d, m) by what each adds to the span of those before."""
    left, lengths, order = x.clone(), torch.linalg.vector_norm(x, dim=0), []
    while len(order) < x.shape[1]:
        rest = torch.linalg.vector_norm(left, dim=0)
        rest[order] = -1
        best = int(rest.argmax())
        if rest[best] <= share * lengths[best] or rest[best] <= 0:
            break
        order.append(best)
        axis = left[:, best] / rest[best]
        left = left - axis[:, None] * (axis @ left)
    return order


def project_texts(subject: Subject, removal, sites: Sequence[Site]):
    """Context manager: the matrices at weight `sites` read removal(x) instead of x, as if W were W (1 - D Eᵀ)."""

    def fn(x: Tensor, moment: Moment) -> Tensor:
        return x - (x @ removal.dual.to(x)) @ removal.basis.to(x).mT

    return tap(subject, {Site(site.component, site.path, "in"): fn for site in sites})
