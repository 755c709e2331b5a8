"""Which of many prompts are asked: a few that stand for all of them. `types.evenly` is the plain rule.

Lists of sentences go through their templates and styles in turn, so that evenly spaced ones may be alike.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence

from concept_probe.types import Prompt


def most_varied(prompts: Sequence[Prompt], most: int) -> tuple[Prompt, ...]:
    """At most `most` of the prompts, in their order, such that every template, style and object has its share.

    They are taken one by one, each time the one whose most taken word was taken least often so far, words that
    all of them have left out. (Every m-th of a list that goes through styles in turn would be of one style.)
    """
    return _by_least_taken_words(tuple(prompts), most, ("",) * len(prompts))


def most_varied_facts(prompts: Sequence[Prompt], most: int) -> tuple[Prompt, ...]:
    """As `most_varied`, but another wording of a fact is taken only once every fact has as many: wordings count as one."""
    return _by_least_taken_words(tuple(prompts), most, tuple(p.fact or p.text for p in prompts))


@functools.lru_cache(maxsize=256)  # an audit asks for the same few of the same lists many times
def _by_least_taken_words(prompts: tuple[Prompt, ...], most: int, groups: tuple[str, ...]) -> tuple[Prompt, ...]:
    if len(prompts) <= most:
        return prompts
    words = [frozenset(re.findall(r"\w+", p.text.casefold())) for p in prompts]
    common = frozenset.intersection(*words)
    words = [w - common for w in words]
    taken: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    left = dict.fromkeys(range(len(prompts)))
    for _ in range(most):
        best = min(left, key=lambda i: (seen[groups[i]], sorted((taken[w] for w in words[i]), reverse=True)))
        del left[best]
        taken.update(words[best])
        seen[groups[best]] += 1
    return tuple(p for i, p in enumerate(prompts) if i not in left)


def scattered(count: int, size: int) -> list[int]:
    """`count` places in a list of `size`, far apart and in no step with its order; each is used before any comes twice.

    A list of sentences repeats its styles and templates in turn: every second sentence may be of the same
    styles. The step is the first from the golden section of `size` up that has no divisor in common with it.
    """
    step = next(s for s in range(max(1, round(size * 0.618)), 2 * size + 2) if math.gcd(s, size) == 1)
    return [i * step % size for i in range(count)]
