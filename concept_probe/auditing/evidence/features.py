"""Features: whether the concept's features still fire, and how far activations leave the range seen before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import (
    Evidence,
    Measure,
    Metric,
    Need,
    compare,
    joined_evidence,
    mean_estimate,
)
from concept_probe.auditing.observe import Observation
from concept_probe.auditing.sides import Side
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.evaluation.rates import per_fact
from concept_probe.types import FORGET_KINDS, JUDGED_KINDS, RETAIN_KINDS, Kind, Prompt, Site

OUT_OF_RANGE = Metric("features", "share of activation norm out of the range before", "lower", "share")
WATCHED_FEATURES = Need(
    lambda context: bool(context.places.features),
    "Features: no features of an autoencoder were given (`found=`, `--found`), so none were watched.",
)


def _feature_firing(context: Context) -> Evidence:
    """Firing of found features on prompts that ask for the concept."""
    return joined_evidence(_firing_of(context, i) for i in range(len(context.places.features)))


def share_firing(x: Float[Tensor, "... k"]) -> Float[Tensor, "..."]:
    """Share of features whose activation is above 0."""
    return (x > 0).float().mean(-1)


def mean_activation(x: Float[Tensor, "... k"]) -> Float[Tensor, "..."]:
    """Mean over features."""
    return x.mean(-1)


def _firing_of(context: Context, i: int) -> Evidence:
    """Share of the found features of subspace `i` that fire anywhere in a prompt, and their largest activation.

    Without a twin the never-taught value is that on prompts for other things, by the subject before.
    """
    subspace, seen = context.places.features[i], context.seen
    site, count = str(subspace.site), len(subspace.features)

    def of_facts(seen: Observation, kinds: Sequence[Kind], measure: Callable[[Tensor], Tensor]) -> Tensor:
        rows = torch.cat([seen.firing[i][kind] for kind in kinds])
        return per_fact(measure(rows), context.questions.prompts_of(kinds))

    def firing(seen: Observation, kinds: Sequence[Kind], side: Side, key: str) -> Draws:
        return context.rate(of_facts(seen, kinds, share_firing), f"features/{i}/{key}", side)

    before = firing(seen.before, FORGET_KINDS, "before", "shows")
    after = firing(seen.after, FORGET_KINDS, "after", "shows")
    if seen.control is not None:
        never, control = firing(seen.control, FORGET_KINDS, "control", "shows"), "never-taught twin"
        other = of_facts(seen.control, FORGET_KINDS, mean_activation)
    else:
        never, control = firing(seen.before, RETAIN_KINDS, "before", "keeps"), "neighbours and unrelated prompts"
        other = of_facts(seen.before, RETAIN_KINDS, mean_activation)
    index, beside = None, context.beside(*(tuple(o.firing[i].values()) for o in (seen.before, seen.after)))
    if not beside:
        index = residual_index(f"firing of its {count} features at {site}", before, after, never, context.gap)
    share = Metric("features", f"share of its {count} features that fire", "lower", "share")
    note = "" if index else context.no_index(beside=beside)
    largest = Metric("features", f"largest activation of its {count} features, mean", "lower", "activation")
    first, second = (of_facts(o, FORGET_KINDS, mean_activation) for o in (seen.before, seen.after))
    now = mean_estimate(context, second, f"features/{i}/shows", after.n)
    return Evidence(
        (
            compare(share, site, before, after, never, control=control, index=index, note=note),
            compare(largest, site, float(first.mean()), now, float(other.mean()), control=control),
        )
    )


def _out_of_range(context: Context) -> Evidence:
    """‖x − clamp(x, low, high)‖ / ‖x − mean‖, with the range per dimension over activations of the subject before.

    Activations that no prompt produces make the rest of the model guess: an artefact, not an erasure
    (arXiv 2606.31699).
    """
    places, seen = context.places, context.seen
    parts: list[Evidence] = []
    for site in places.text[-1:]:
        before, after = seen.before.text[site], seen.after.text[site]
        fitted = torch.cat([before.fit, before.fit_others])
        if not len(fitted):
            parts.append(Evidence(not_measured=(f"{OUT_OF_RANGE.name}, at {site}: the concept has no fit prompts.",)))
            continue
        tests = before.test(JUDGED_KINDS), after.test(JUDGED_KINDS)
        asked = context.questions.prompts_of(JUDGED_KINDS)
        parts.append(_share_outside(context, site, "end token", fitted, tests, asked))
    for site in places.inner[-1:]:
        step = places.steps[-1]
        before, after = seen.before.inner[site, step], seen.after.inner[site, step]
        tests = before.test(JUDGED_KINDS).flatten(0, 1), after.test(JUDGED_KINDS).flatten(0, 1)
        # The range is that of all pictures before: there are too few fit pictures to know a range from.
        every = torch.cat([tests[0], before.fit, before.fit_others])
        parts.append(_share_outside(context, site, f"step {step}", every, tests))
    return joined_evidence(parts)


def _share_outside(
    context: Context, site: Site, where: str, seen: Float[Tensor, "m d"], tests: tuple[Tensor, Tensor],
    asked: Sequence[Prompt] = (),
) -> Evidence:  # fmt: skip
    """Of `tests` before and after, outside the range of `seen`; with `asked`, the prompt of each row of both, wordings
    of one fact count once."""
    low, high, middle = seen.amin(0), seen.amax(0), seen.mean(0)

    def share(x: Tensor) -> Tensor:
        outside = torch.linalg.vector_norm(x - x.clamp(low, high), dim=-1)
        each = outside / torch.linalg.vector_norm(x - middle, dim=-1).clamp_min(1e-12)
        return per_fact(each, asked) if asked else each

    first, second = share(tests[0]), share(tests[1].nan_to_num())
    now = mean_estimate(context, second, f"outside/{site}")
    note = "artefact monitor"
    return Evidence((compare(OUT_OF_RANGE, f"{site} ({where})", float(first.mean()), now, note=note),))


FEATURE_FIRING = Measure("feature firing", _feature_firing, needs=(WATCHED_FEATURES,), asks=FORGET_KINDS)
ACTIVATION_RANGE = Measure("activation range", _out_of_range, asks=JUDGED_KINDS)
