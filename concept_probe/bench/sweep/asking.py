"""Which test prompts a cell without an attack asks, each with noise of its own."""

from __future__ import annotations

from collections.abc import Sequence

from concept_probe.bench.sweep.grid import SweepSettings
from concept_probe.evaluation.thinning import most_varied
from concept_probe.types import JUDGED_KINDS, Concept, Kind, Prompt, Query


def queries(concept: Concept, settings: SweepSettings, seed: int) -> dict[Kind, tuple[Query, ...]]:
    """Per kind as many test prompts as the settings say, query i of a kind with the noise of 1000 `seed` + i."""
    out: dict[Kind, tuple[Query, ...]] = {}
    for kind in JUDGED_KINDS:
        prompts, count = concept.prompts(kind, "test"), settings.counts.get(kind, 0)
        if prompts and count:
            chosen = _CHOOSE[settings.asking](prompts, count, seed)
            out[kind] = tuple(Query(prompt, 1000 * seed + i) for i, prompt in enumerate(chosen))
    return out


def _repeated(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    # Another seed begins elsewhere in the list, so that seeds together ask more sentences.
    start = seed * count % len(prompts)
    chosen = most_varied((*prompts[start:], *prompts[:start]), min(count, len(prompts)))
    return [chosen[i % len(chosen)] for i in range(count)]


def _spread(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    few = count > len(prompts)
    return [prompts[i % len(prompts) if few else i * len(prompts) // count] for i in range(count)]


def _once(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    return list(most_varied(prompts, count))


_CHOOSE = {"repeated": _repeated, "spread": _spread, "once": _once}
