"""Numbers made again from the observations that they were made of."""

from __future__ import annotations

from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws, at_least, mean_of
from concept_probe.types import NumberSource


def draws_again(source: NumberSource, bootstrap: BayesianBootstrap) -> Draws:
    """The draws that `bootstrap` made of a source, again. ValueError for a source that it can't have made."""
    parts = [draws_again(part, bootstrap) for part in source.parts]
    try:
        if source.how == "rate":
            (hits,) = source.tensors
            return bootstrap.rate(hits, source.key, source.arm)
        if source.how == "auroc":
            positive, negative, of, rest = source.tensors
            return bootstrap.auroc(positive, negative, source.key, source.arm, (of, rest))
        if source.how == "share":
            (values,) = source.tensors
            return bootstrap.share(values, source.key)
        if source.how == "certain":
            (known,) = source.tensors
            return bootstrap.certain(float(known), int(source.number))
        if source.how == "floor":
            (part,) = parts
            return at_least(part, source.number)
        if source.how == "mean" and parts:
            return mean_of(parts)
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"nothing is drawn by {source.how!r} from this: {error}") from None
    raise ValueError(f"nothing is drawn by {source.how!r} from {len(source.tensors)} tensors and {len(parts)} parts")


def mean_with_interval(source: NumberSource, bootstrap: BayesianBootstrap) -> tuple[float, float, float, int]:
    """Mean, interval and count of a source of `values`. ValueError for another source."""
    if source.how != "values" or len(source.tensors) != 1:
        raise ValueError(f"{source.how!r} of {len(source.tensors)} tensors is no mean of values")
    (values,) = source.tensors
    rows = values.flatten(1).mean(1) if values.ndim > 1 else values
    return float(values.mean()), *bootstrap.mean(rows, source.key), int(source.number)
