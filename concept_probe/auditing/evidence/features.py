"""Features: whether the concept's features still fire, and how far activations leave the range seen before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.auditing.observe import Observation, Places
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.evaluation.rates import per_fact
from concept_probe.types import FORGET_KINDS, JUDGED_KINDS, RETAIN_KINDS, Finding, Kind, Prompt, Site


def features(views: Views, places: Places) -> Evidence:
    """Firing of found features on prompts that ask for the concept; the share of activation norm out of range."""
    out = Evidence()
    if not places.features:
        out.not_measured.append(
            "Features: no features of an autoencoder were given (`found=`, `--found`), so none were watched."
        )
    for i, subspace in enumerate(places.features):
        _firing(out, views, i, str(subspace.site), len(subspace.features))
    _out_of_range(out, views, places)
    return out


def fired(x: Tensor) -> Tensor:
    """Share of features that fire: activations (..., k) -> (...)."""
    return (x > 0).float().mean(-1)


def strength(x: Tensor) -> Tensor:
    """Mean over features: activations (..., k) -> (...)."""
    return x.mean(-1)


def _facts(
    views: Views, seen: Observation, i: int, kinds: Sequence[Kind], measure: Callable[[Tensor], Tensor]
) -> Tensor:
    """(facts, seeds): a measure of the largest activations of subspace `i`'s features in test prompts of some kinds."""
    width, plan = len(views.plan.seeds), views.plan
    tests = len(plan.tests())
    counts = [len(plan.prompts(k)) * width for k in JUDGED_KINDS]
    parts = dict(zip(JUDGED_KINDS, seen.firing[i][:tests].split(counts), strict=True))
    rows = torch.cat([parts[k] for k in kinds]).reshape(-1, width, seen.firing[i].shape[1])
    return per_fact(measure(rows), [p for k in kinds for p in plan.prompts(k)])


def _firing(out: Evidence, views: Views, i: int, site: str, count: int) -> None:
    """Share of the found features that fire anywhere in a prompt.

    Without a twin the never-taught value is that on prompts for other things, by the subject before.
    """

    def share(seen: Observation, kinds, arm: str, key: str) -> Draws:
        return views.rate(_facts(views, seen, i, kinds, fired), f"features/{i}/{key}", arm)

    before, after = (
        share(views.before, FORGET_KINDS, "before", "shows"),
        share(views.after, FORGET_KINDS, "after", "shows"),
    )
    if views.control is not None:
        never, name = share(views.control, FORGET_KINDS, "control", "shows"), "never-taught twin"
    else:
        never, name = share(views.before, RETAIN_KINDS, "before", "keeps"), "neighbours and unrelated prompts"
    score = residual_index(f"firing of its {count} features at {site}", before, after, never, views.thresholds.gap)
    out.findings.append(
        Finding(
            "features",
            f"share of its {count} features that fire",
            site,
            before.value,
            after.value,
            never.value,
            *after.interval(),
            after.n,
            "lower",
            score,
            name,
            "share",
            "" if score else f"before − control is under {views.thresholds.gap:g}, or may be 0: no index",
        )
    )
    if score:
        out.indices.append(score)
    mine = [_facts(views, seen, i, FORGET_KINDS, strength) for seen in (views.before, views.after)]
    mean = [float(x.mean()) for x in mine]
    low, high = views.bootstrap.mean(mine[1].mean(1), f"features/{i}/shows")
    other = _facts(views, views.control or views.before, i, FORGET_KINDS if views.control else RETAIN_KINDS, strength)
    control = float(other.mean())
    out.findings.append(
        Finding(
            "features",
            f"largest activation of its {count} features, mean",
            site,
            mean[0],
            mean[1],
            control,
            low,
            high,
            after.n,
            "lower",
            None,
            name,
            "activation",
        )
    )


def _out_of_range(out: Evidence, views: Views, places: Places) -> None:
    """‖x − clamp(x, low, high)‖ / ‖x − mean‖, with the range per dimension over the fit prompts of the subject before.

    Activations that no prompt produces make the rest of the model guess: an artefact, not an erasure
    (arXiv 2606.31699).
    """
    mine, others = views.plan.fits(96)
    wide = len(mine) + len(others)
    for site in places.text[-1:]:
        before, after = views.before.text[site], views.after.text[site]
        asked = [p for k in JUDGED_KINDS for p in views.plan.prompts(k)]
        _share_outside(out, views, site, "end token", before[:wide], before[wide:], after[wide:], asked)
    tests = len(views.plan.tests())
    for site in places.inner[-1:]:
        step = places.steps[-1]
        before, after = views.before.inner[site, step], views.after.inner[site, step]
        # The range is that of all pictures before: there are too few fit pictures to know a range from.
        _share_outside(out, views, site, f"step {step}", before, before[:tests], after[:tests])


def _share_outside(
    out: Evidence, views: Views, site: Site, where: str, seen: Tensor, before: Tensor, after: Tensor,
    asked: Sequence[Prompt] = (),
) -> None:  # fmt: skip
    """With `asked`, the prompt of each row of `before` and `after`, wordings of one fact count once."""
    low, high, middle = seen.amin(0), seen.amax(0), seen.mean(0)

    def share(x: Tensor) -> Tensor:
        outside = torch.linalg.vector_norm(x - x.clamp(low, high), dim=-1)
        each = outside / torch.linalg.vector_norm(x - middle, dim=-1).clamp_min(1e-12)
        return per_fact(each, asked) if asked else each

    first, second = share(before), share(after.nan_to_num())
    ends = views.bootstrap.mean(second, f"outside/{site}")
    out.findings.append(
        Finding(
            "features",
            "share of activation norm out of the range before",
            f"{site} ({where})",
            float(first.mean()),
            float(second.mean()),
            None,
            *ends,
            len(second),
            "lower",
            unit="share",
            note="artefact monitor",
        )
    )
