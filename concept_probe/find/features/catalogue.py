"""Describe features of an autoencoder: where they fire, what they prefer, what they write. Data for the browser."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from concept_probe.activations import Activations, capture
from concept_probe.arguments import Natural, check_arguments
from concept_probe.evaluation.auroc import auroc_scores
from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.families.text.token_strings import pieces
from concept_probe.families.text.tokens import queries_of
from concept_probe.find.features.firing import PromptFiring, firing_per_prompt, prompt_label, values_at
from concept_probe.find.layout import has_tokens
from concept_probe.learn.belongs import check_belongs
from concept_probe.types import (
    Catalogue,
    Example,
    FeatureEntry,
    Prompt,
    Query,
    Sampling,
    Score,
    SparseCoder,
    evenly,
    unit,
)

if TYPE_CHECKING:
    from concept_probe.families import Subject

NAMES, DIRECTIONS = 5, 512
"""Names per feature, and random directions that the cosine of a nearest name is compared with."""
OCCASIONS = 3
"""Prompts of one half on which a feature must fire to be chosen."""
Asked = TypeVar("Asked", Prompt, Query)
EACH = 6
"""Prompts of one label that `evenly_by_label` leaves at least."""


@dataclass(frozen=True)
class Examples:
    """How many prompts of a feature are shown."""

    count: Natural = 6
    """The prompts of largest firing."""
    images: Natural = 0
    """For how many of them, strongest first, an image is made, where the subject makes any."""

    def __post_init__(self) -> None:
        check_arguments(self, "examples")


@torch.no_grad()
def catalogue(
    sae: SparseCoder,
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    *,
    features: Sequence[int] = (),
    count: int = 64,
    examples: Examples = Examples(),
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> Catalogue:
    """Features of `sae` described on `prompts`: those asked for, or the `count` that keep most to one label.

    What a feature prefers is chosen on every other prompt of each label, and its selectivity measured on the
    rest. Names are labels whose mean activation at the site (at the subject's tokens), less the mean of all
    labels, points where the feature's decoder row points. `examples` are the prompts of largest firing; sites in the
    denoising loop are captured while images are made, from seed 0 of each prompt, or a query's own.

    Raises ValueError for a feature that is not there, or for more prompts than can be held at once.
    """
    check_belongs(sae, subject)
    wrong = [j for j in features if not 0 <= j < sae.width]
    if wrong:
        raise ValueError(f"feature {wrong[0]} was asked for; the autoencoder over {sae.site} has 0 to {sae.width - 1}")
    asked = list(dict.fromkeys(queries_of(prompts)))
    if subject.is_text(sae.site):  # a text is read alike whatever is drawn from it
        asked = list({q.prompt: q for q in reversed(asked)}.values())[::-1]
    prompts = [q.prompt for q in asked]
    tokens = has_tokens(subject, sae.site)
    store = capture(subject, asked, sites=[sae.site], kinds=NAMED_KINDS if tokens else None, sampling=sampling)
    labels = sorted({prompt_label(p) for p in prompts} - {""})
    seen = firing_per_prompt(sae, store, labels)
    about = torch.tensor([labels.index(prompt_label(p)) if prompt_label(p) else -1 for p in prompts])
    halves = _halves(about)
    preference = _preferences(seen, about, halves, len(labels))
    chosen, why = _choose(seen, preference, list(features), count)
    names, chance = _names(sae, seen, labels, chosen, seed)
    selectivity = _selectivity(seen, about, halves, preference[0], chosen, seed)
    shown = _examples(sae, subject, store, asked, seen, chosen, examples, sampling)
    entries = tuple(
        FeatureEntry(
            j,
            float(seen.fired[j]) / seen.rows,
            float(seen.strongest[:, j].max()),
            labels[int(preference[0][j])] if labels else "",
            selectivity.get(j),
            names[i],
            shown[i],
        )
        for i, j in enumerate(chosen)
    )
    frequencies = tuple((seen.fired.double() / seen.rows).tolist())
    origin = {"subject": subject.name, "weights": subject.weight_hash(), "seed": str(seed)}
    return Catalogue(
        subject.name, str(sae.site), sae.width, entries, frequencies, len(prompts), seen.rows, why, chance, origin
    )


def evenly_by_label(prompts: Sequence[Asked], limit: int) -> tuple[Asked, ...]:
    """At most `limit` prompts or queries, evenly spread; fewer labels rather than fewer than EACH prompts of one.

    What a feature prefers can only be judged on labels that several prompts share.
    """
    if limit >= len(prompts):
        return tuple(prompts)
    of: dict[str, list[Asked]] = {}
    for one in prompts:
        of.setdefault(prompt_label(one.prompt if isinstance(one, Query) else one), []).append(one)
    if set(of) == {""}:
        return evenly(prompts, limit)
    labels = list(of)
    each = max(EACH, limit // len(labels))
    kept = min(len(labels), max(1, limit // each))
    chosen = evenly(labels, kept)
    return tuple(of[name][i * len(of[name]) // each] for name in chosen for i in range(min(each, len(of[name]))))


def _halves(about: Tensor) -> Tensor:
    """(p,) bool: every other prompt of each label."""
    out = torch.zeros(len(about), dtype=torch.bool)
    for label in about.unique().tolist():
        out[(about == label).nonzero()[::2, 0]] = True
    return out


def _preferences(seen: PromptFiring, about: Tensor, half: Tensor, labels: int) -> tuple[Tensor, Tensor]:
    """Per feature (f,) on one half: the label it fires on most, and how much it keeps to it.

    That is the label's share of its mean firing over labels, times the share of the label's prompts on which it
    fires; 0 for a feature that fires on fewer than OCCASIONS prompts of that half.
    """
    f = seen.strongest.shape[1]
    if not labels:
        return torch.zeros(f, dtype=torch.long), torch.zeros(f)
    rows = half & (about >= 0)
    values = seen.strongest[rows]
    sizes = torch.bincount(about[rows], minlength=labels).clamp_min(1)[:, None]
    means = torch.zeros(labels, f).index_add_(0, about[rows], values.float()) / sizes
    covered = torch.zeros(labels, f).index_add_(0, about[rows], (values > 0).float()) / sizes
    top = means.max(0)
    keeps = top.values / means.sum(0).clamp_min(1e-12) * covered.gather(0, top.indices[None])[0]
    return top.indices, torch.where((values > 0).sum(0) >= OCCASIONS, keeps, 0)


def _choose(
    seen: PromptFiring, preference: tuple[Tensor, Tensor], features: list[int], count: int
) -> tuple[list[int], str]:
    if features:
        return list(dict.fromkeys(features)), "asked for"
    count = min(count, len(seen.fired))
    if float(preference[1].max()) > 0:
        best = preference[1].topk(count)
        kept = best.indices[best.values > 0].tolist()
        return kept, f"the {len(kept)} that keep most to one label"
    best = seen.strongest.amax(0).float().topk(count)
    kept = best.indices[best.values > 0].tolist()
    return kept, f"the {len(kept)} that fire most strongly, since no prompt has a label"


def _names(
    sae: SparseCoder, seen: PromptFiring, labels: list[str], chosen: list[int], seed: int
) -> tuple[list[tuple[tuple[str, float], ...]], float | None]:
    if len(labels) < 2:
        return [()] * len(chosen), None
    directions = unit(seen.means - seen.means.mean(0), dim=1)
    rows = unit(sae.decoder[chosen].detach().double().cpu(), dim=1)
    best = (rows @ directions.mT).topk(min(NAMES, len(labels)), dim=1)
    noise = torch.randn(DIRECTIONS, rows.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chance = float((unit(noise, dim=1) @ directions.mT).amax(1).quantile(0.975))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [tuple((labels[i], v) for i, v in zip(ids, cosines, strict=True)) for ids, cosines in pairs], chance


def _selectivity(
    seen: PromptFiring, about: Tensor, half: Tensor, prefers: Tensor, chosen: list[int], seed: int
) -> dict[int, Score]:
    """AUROC of the preferred label on the half that did not choose it; features of one label are judged together."""
    rows = ~half & (about >= 0)
    out: dict[int, Score] = {}
    for label in {int(prefers[j]) for j in chosen}:
        mine = [j for j in chosen if int(prefers[j]) == label]
        is_label = about[rows] == label
        if is_label.any() and not is_label.all():
            values = seen.strongest[rows][:, mine].float()
            scores = auroc_scores(values, is_label, "AUROC of the preferred label", seed=seed)
            out |= dict(zip(mine, scores, strict=True))
    return out


def _examples(
    sae: SparseCoder,
    subject: Subject,
    store: Activations,
    queries: list[Query],
    seen: PromptFiring,
    chosen: list[int],
    asked: Examples,
    sampling: Sampling,
) -> list[tuple[Example, ...]]:
    tokens = has_tokens(subject, sae.site)
    strongest = seen.strongest[:, chosen].float()
    top = strongest.topk(min(asked.count, len(queries)), dim=0)
    kept = [
        [p for p, v in zip(ids, values, strict=True) if v > 0]
        for ids, values in zip(top.indices.mT.tolist(), top.values.mT.tolist(), strict=True)
    ]
    everywhere = values_at(sae, store, sorted({p for ids in kept for p in ids}), chosen)
    drawn = _draw(subject, queries, sorted({p for ids in kept for p in ids[: asked.images]}), sampling)
    out = []
    for i, ids in enumerate(kept):
        some = []
        for rank, p in enumerate(ids):
            values = everywhere[p][:, i]
            some.append(
                Example(
                    queries[p].prompt.text,
                    float(strongest[p, i]),
                    pieces(subject, sae.site.component, queries[p].prompt, values.tolist()) if tokens else (),
                    () if tokens else _grid(values),
                    drawn.get(p) if rank < asked.images else None,
                )
            )
        out.append(tuple(some))
    return out


def _grid(values: Tensor) -> tuple[tuple[float, ...], ...]:
    """Values (h w,) of square pictures as rows of columns; of others as one row."""
    side = math.isqrt(len(values))
    shape = (side, side) if side * side == len(values) else (1, len(values))
    return tuple(map(tuple, values.nan_to_num(0).view(shape).tolist()))


def _draw(subject: Subject, queries: list[Query], which: list[int], sampling: Sampling) -> dict[int, bytes]:
    from concept_probe.families.diffusion.subject import DiffusionSubject

    if not which or not isinstance(subject, DiffusionSubject):
        return {}
    images = subject.generate([queries[p] for p in which], sampling)
    return {p: _png(image) for p, image in zip(which, images, strict=True)}


def _png(image: Tensor) -> bytes:
    from PIL import Image  # only a catalogue with pictures needs it

    array = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    out = io.BytesIO()
    Image.fromarray(array).save(out, format="PNG", optimize=True)
    return out.getvalue()
