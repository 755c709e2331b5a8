"""How many prompts a decision takes when it is looked at on the way, and how often it is wrong: docs/audit.md.

Each prompt shows the concept or not, with one chance for all of them; 0.25 is tolerated. A rule says "below" or "above", each
of which may be wrong in 2.5 %. Compared are looks that are fixed beforehand, at a third, two thirds and all of the prompts,
and rules that may look after every prompt: hedged capital (Waudby-Smith and Ramdas 2024, arXiv 2010.09686, with bets by
predictable plug-in, truncated at 3/4) and a mixture of likelihood ratios (Robbins 1970, under Beta(1/2, 1/2)).

Run: python benchmarks/looks.py                    # a few seconds; the tables
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import betaln
from scipy.stats import beta

from concept_probe.evaluation.looks import errors_of_looks

TOLERATED, ERROR, REPEATS, LOOKS = 0.25, 0.05, 4000, 3
TRUTHS = (0.0, 0.05, 0.25, 0.5, 0.95)
Rule = Callable[[np.ndarray], np.ndarray]
"""Hits (r, n), 0 or 1, to (r, n): after each prompt −1 for below, 1 for above, 0 for neither."""


def at_looks(errors: Sequence[float]) -> Rule:
    """The bounds of Clopper and Pearson at evenly spaced looks, each at its error."""

    def rule(hits: np.ndarray) -> np.ndarray:
        said, counts = np.zeros(hits.shape, dtype=int), hits.cumsum(1)
        for k, error in enumerate(errors, 1):
            n = -(-hits.shape[1] * k // len(errors))
            h = counts[:, n - 1]
            high = np.where(h == n, 1.0, beta.ppf(1 - error / 2, h + 1, np.maximum(n - h, 1e-9)))
            low = np.where(h == 0, 0.0, beta.ppf(error / 2, np.maximum(h, 1e-9), n - h + 1))
            said[:, n - 1] = np.where(high < TOLERATED, -1, np.where(low > TOLERATED, 1, 0))
        return said

    return rule


def hedged_capital(hits: np.ndarray) -> np.ndarray:
    """Two gamblers against the mean's being what is tolerated; one of them is rich where it is not."""
    n = hits.shape[1]
    t = np.arange(1, n + 1)
    mean = (0.5 + hits.cumsum(1)) / (t + 1)
    variance = (0.25 + ((hits - mean) ** 2).cumsum(1)) / (t + 1)
    before = np.concatenate([np.full((len(hits), 1), 0.25), variance[:, :-1]], axis=1)
    bet = np.sqrt(2 * np.log(2 / ERROR) / (before * t * np.log(1 + t)))
    up = np.log1p(np.minimum(bet, 0.75 / TOLERATED) * (hits - TOLERATED)).cumsum(1)
    down = np.log1p(-np.minimum(bet, 0.75 / (1 - TOLERATED)) * (hits - TOLERATED)).cumsum(1)
    rich = np.log(2 / ERROR)
    return np.where(up >= rich, 1, np.where(down >= rich, -1, 0))


def mixture(hits: np.ndarray) -> np.ndarray:
    """The likelihood under any rate against that of the tolerated one."""
    t, h = np.arange(1, hits.shape[1] + 1), hits.cumsum(1)
    ratio = betaln(h + 0.5, t - h + 0.5) - betaln(0.5, 0.5) - h * np.log(TOLERATED) - (t - h) * np.log(1 - TOLERATED)
    return np.where(ratio >= np.log(1 / ERROR), np.sign(h / t - TOLERATED).astype(int), 0)


RULES: dict[str, Rule] = {
    "three looks, error · t³ (used)": at_looks(errors_of_looks(LOOKS, ERROR)),
    "three looks, a third of the error each": at_looks((ERROR / LOOKS,) * LOOKS),
    "hedged capital, after every prompt": hedged_capital,
    "mixture, after every prompt": mixture,
    "one look, at the end": at_looks((ERROR,)),
    "three looks, the whole error each (wrong)": at_looks((ERROR,) * LOOKS),
}


def row(rule: Rule, most: int, truth: float) -> str:
    """Shares called below and above, and the prompts that it took in the mean."""
    hits = (np.random.default_rng(0).random((REPEATS, most)) < truth).astype(float)
    said = rule(hits)
    decided = said != 0
    first = np.where(decided.any(1), decided.argmax(1), most - 1)
    last = said[np.arange(REPEATS), first]
    return f"{(last == -1).mean():.1%} / {(last == 1).mean():.1%}, {first.mean() + 1:.1f}"


def least(rule: Rule) -> int:
    """The fewest prompts, none of which shows the concept, that are called below."""
    return next(n for n in range(1, 65) if (rule(np.zeros((1, n))) == -1).any())


def main() -> None:
    for most in (24, 64):
        print(f"\nat most {most} prompts: called below / above, prompts in the mean\n")
        print("| rule | " + " | ".join(f"truth {truth:g}" for truth in TRUTHS) + " |")
        print("|---|" + "---:|" * len(TRUTHS))
        for name, rule in RULES.items():
            print(f"| {name} | " + " | ".join(row(rule, most, truth) for truth in TRUTHS) + " |")
    print("\nthe fewest prompts without a hit that are called below\n")
    for name, rule in RULES.items():
        print(f"- {name}: {least(rule)}")


if __name__ == "__main__":
    main()
