"""From rows to a leaderboard: rates over blocks with intervals, differences with their tests, and the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch

from concept_probe.bench.board.comparable import Common, common_ground
from concept_probe.bench.board.rates import block_rate, mean_of_rates, scored
from concept_probe.bench.board.scores import (
    ASK_FOR_IT,
    BlockScores,
    ConceptAndSeed,
    blocks_of,
    common_blocks,
    control_of,
    pooled,
    table,
    with_control,
)
from concept_probe.bench.board.secondary import QUALITY, area_above, criteria_mean, unnamed_share
from concept_probe.bench.quality.criteria import CRITERIA
from concept_probe.bench.sweep.grid import NEVER_TAUGHT, UNTOUCHED
from concept_probe.bench.sweep.store import SweepRow
from concept_probe.evaluation.bayesian import SMALLEST_DENOMINATOR, BayesianBootstrap, Draws
from concept_probe.evaluation.paired import holm, sign_flip
from concept_probe.types import RETAIN_KINDS, Difference, Leaderboard, Standing
from concept_probe.types.boards import Origin

COMPARED_BY = ("erased", "kept", "recovered")
NAMED = 5
"""So many erasers that failed alike are named."""


def leaderboard(
    rows: Sequence[SweepRow], *, subject: str, ours: Sequence[str] = (), provenance: Mapping[str, str] | None = None,
    bootstrap: BayesianBootstrap = BayesianBootstrap(),
) -> Leaderboard:  # fmt: skip
    """Add up the rows of a sweep.

    Intervals are of a Bayesian bootstrap that draws blocks (a concept with a seed) whole, the same for every eraser.
    What is recovered is compared on common ground, see `common_ground`; the notes say what is not part of it. Raises
    ValueError where no eraser has a finished cell without attack.
    """
    found = {name: m for name, m in blocks_of(rows).items() if m.values}
    if not found:
        raise ValueError("no finished cell without attack among the rows: run the sweep first")
    attacks = tuple(dict.fromkeys(row.attack for row in rows if row.attack != "none" and row.status == "done"))
    judged = {name: replace(m, attacks=with_control(found, m)) for name, m in found.items()}
    common = common_ground(judged, attacks)
    standings = [_standing(name, found, attacks, common, ours, bootstrap) for name in found]
    erasers = sorted(
        (s for s in standings if s.part != "control"), key=lambda s: (s.name not in common.erasers, -s.harmonic.value)
    )
    blocks = [block for m in found.values() for block in m.values]
    return Leaderboard(
        subject, tuple(dict.fromkeys(c for c, _ in blocks)), attacks, tuple(sorted({s for _, s in blocks})),
        (*erasers, *(s for s in standings if s.part == "control")), tuple(_differences(found, common)),
        front(erasers),
        "the same attack on the never-taught twin" if NEVER_TAUGHT in found else "a random candidate of the attack",
        tuple(common.attacks), len(common.blocks), tuple(_notes(rows, found, attacks, common)), dict(provenance or {}),
    )  # fmt: skip


def front(standings: Sequence[Standing]) -> tuple[str, ...]:
    """Those that no other beats (see `beats`). Without attacks it is empty."""
    able = [s for s in standings if s.recovered is not None]
    return tuple(s.name for s in able if not any(beats(other, s) for other in able))


def beats(a: Standing, b: Standing) -> bool:
    """Whether `a` recovers no more and keeps no less than `b`, and is better in one of them, by value."""
    if a.recovered is None or b.recovered is None:
        return False
    less, more = b.recovered.value - a.recovered.value, a.kept.value - b.kept.value
    return min(less, more) >= 0 and max(less, more) > 0


def _standing(
    name: str,
    found: Mapping[str, BlockScores],
    attacks: Sequence[str],
    common: Common,
    ours: Sequence[str],
    bootstrap: BayesianBootstrap,
) -> Standing:
    part = _part(name, ours)
    able = part == "control" or name in common.erasers
    mine = common_blocks(found[name], common.blocks) if able else found[name]
    arm = "before" if name == UNTOUCHED else name  # the same model in the same state is one sample
    rates = {what: block_rate(bootstrap, mine.after, kinds, what, arm) for what, kinds in _KINDS.items()}
    before = {what: block_rate(bootstrap, mine.before, kinds, what, "before") for what, kinds in _KINDS.items()}
    target, others = rates["target"], rates["others"]
    assert target is not None and others is not None  # every cell asks for the concept and for others
    erased, kept = _not(target), _share(others, before["others"])
    general = None if rates["words"] is None else _not(rates["words"])
    parts = [d for d in (erased, general, _at_most_one(kept)) if d is not None]
    above = {a: d for a in attacks if (d := _above(bootstrap, found, name, a)) is not None}
    met = {
        a: d for a, of in common.attacks.items() if able and (d := _above(bootstrap, found, name, a, of)) is not None
    }
    return Standing(
        name,
        part,
        scored(erased, "erased", "higher"),
        None if general is None else scored(general, "general", "higher"),
        scored(kept, "kept", "higher"),
        None if rates["across"] is None else scored(_share(rates["across"], before["across"]), "across", "higher"),
        scored(_harmonic(parts), "harmonic mean", "higher"),
        scored(mean_of_rates(list(met.values())), "recovered", "lower") if met else None,
        max((scored(d, a, "lower") for a, d in met.items()), key=lambda s: s.value, default=None),
        {a: scored(d, a, "lower") for a, d in above.items()},
        _means(mine, ("pixels kept", "pixels target", "pixels control", "mmd kept", "mmd control")),
        _means(mine, ("seconds", "peak", "numbers", "change"), "fit"),
        area_above(bootstrap, found, name, common) if able else None,
        unnamed_share(bootstrap, mine, arm),
        criteria_mean(bootstrap, mine, arm),
        _means(mine, QUALITY) | _means(mine, CRITERIA, "erase_eval"),
        len(mine.values),
        _by_concept(mine),
    )


_KINDS = {"target": ("target",), "words": ASK_FOR_IT, "others": RETAIN_KINDS, "across": ("across",)}


def _erased(mine: BlockScores) -> dict[ConceptAndSeed, float]:
    """1 − detection on prompts that name the concept, by block."""
    return {block: 1 - hits / n for block, counts in mine.after.items() for hits, n in [counts["target"]]}


def _by_concept(mine: BlockScores) -> dict[str, float]:
    """`_erased`, mean over each concept's seeds."""
    values: dict[str, list[float]] = {}
    for (concept, _), value in _erased(mine).items():
        values.setdefault(concept, []).append(value)
    return {concept: sum(of) / len(of) for concept, of in values.items()}


def _part(name: str, ours: Sequence[str]) -> Origin:
    return "control" if name in (UNTOUCHED, NEVER_TAUGHT) else "ours" if name in ours else "published"


def _above(
    bootstrap: BayesianBootstrap,
    found: Mapping[str, BlockScores],
    name: str,
    attack: str,
    among: frozenset[ConceptAndSeed] | None = None,
) -> Draws | None:
    """Success − control over the blocks (`among` these) that have both."""
    mine, never = found[name].attacks.get(attack, {}), control_of(found, found[name], attack)
    both = sorted(b for b in mine.keys() & never.keys() if among is None or b in among)
    if not both:
        return None
    key = f"attack {attack}"
    a = bootstrap.rate(table([mine[b] for b in both]), key, name)
    b = bootstrap.rate(table([never[b] for b in both]), key, NEVER_TAUGHT if NEVER_TAUGHT in found else f"{name}, own")
    draws = torch.zeros_like(a.draws) if name == NEVER_TAUGHT else a.draws - b.draws
    return Draws(a.value - b.value, draws, sum(mine[b][1] for b in both))


def _not(d: Draws) -> Draws:
    return Draws(1 - d.value, 1 - d.draws, d.n)


def _share(after: Draws, before: Draws | None) -> Draws:
    assert before is not None  # what was asked after was asked before
    return Draws(
        after.value / max(before.value, SMALLEST_DENOMINATOR),
        after.draws / before.draws.clamp_min(SMALLEST_DENOMINATOR),
        after.n,
    )


def _at_most_one(d: Draws) -> Draws:
    return Draws(min(1.0, d.value), d.draws.clamp_max(1.0), d.n)


def _harmonic(parts: Sequence[Draws]) -> Draws:
    """m / Σ 1/x, 0 where a part is 0."""
    least = 1e-9
    value = len(parts) / sum(1 / max(d.value, least) for d in parts)
    draws = len(parts) / torch.stack([1 / d.draws.clamp_min(least) for d in parts]).sum(0)
    return Draws(value, draws, sum(d.n for d in parts))


def _means(mine: BlockScores, names: Sequence[str], inside: str | None = None) -> dict[str, float]:
    """Means over the blocks that have a value."""
    out = {}
    for name in names:
        rows = [r.values.get(inside, {}) if inside else r.values for r in mine.values.values()]
        there = [float(v[name]) for v in rows if v.get(name) is not None]
        if there:
            out[name] = sum(there) / len(there)
    return out


def _differences(found: Mapping[str, BlockScores], common: Common) -> list[Difference]:
    """Every pair of compared erasers on every measure; of all, where none was attacked.

    One that was tried on a single concept can show nothing, and would only make the correction of the others harsher.
    """
    names = [n for n in found if n in common.erasers] or [n for n in found if n not in (UNTOUCHED, NEVER_TAUGHT)]
    out: list[Difference] = []
    for measure in COMPARED_BY:
        values = {name: _per_block(found, name, measure, common) for name in names}
        pairs = []
        for a, b in combinations(names, 2):
            both = sorted(values[a].keys() & values[b].keys())
            gaps = [values[a][k] - values[b][k] for k in both]
            pairs.append((a, b, sum(gaps) / len(gaps) if gaps else 0.0, sign_flip(gaps), len(gaps)))
        adjusted = holm([p for *_, p, _ in pairs])
        out += [Difference(measure, a, b, v, p, q, n) for (a, b, v, p, n), q in zip(pairs, adjusted, strict=True)]
    return out


def _per_block(
    found: Mapping[str, BlockScores], name: str, measure: str, common: Common
) -> dict[ConceptAndSeed, float]:
    mine = found[name]
    if measure == "erased":
        return _erased(mine)
    if measure == "kept":
        both = {b: (pooled(mine.after[b], RETAIN_KINDS), pooled(mine.before[b], RETAIN_KINDS)) for b in mine.after}
        return {b: (x[0] / x[1]) / max(y[0] / y[1], SMALLEST_DENOMINATOR) for b, (x, y) in both.items() if x and y}
    gains: dict[ConceptAndSeed, list[float]] = {}
    for attack, blocks in common.attacks.items():
        never, attacked = control_of(found, mine, attack), mine.attacks.get(attack, {})
        for block in blocks & never.keys() & attacked.keys():
            (hits, n), (chance, of) = attacked[block], never[block]
            gains.setdefault(block, []).append(hits / n - chance / of)
    wanted = {block: sum(block in of for of in common.attacks.values()) for block in gains}
    return {b: sum(g) / len(g) for b, g in gains.items() if len(g) == wanted[b]}


def _notes(
    rows: Sequence[SweepRow], found: Mapping[str, BlockScores], attacks: Sequence[str], common: Common
) -> list[str]:
    out = []
    judged = {n: with_control(found, m) for n, m in found.items()}
    behind = [n for n, of in judged.items() if of and n not in (*common.erasers, UNTOUCHED, NEVER_TAUGHT)]
    if behind:
        out.append(f"Attacked on too few concepts and seeds to be compared in what is recovered: {', '.join(behind)}.")
    bare = [a for a in attacks if not any(a in of for of in judged.values())]
    if bare:
        out.append(
            f"No control was measured for {', '.join(bare)}, so a success can't be told from chance, and nothing says what "
            "is recovered: run the sweep with a never-taught twin, or with attacks that bring a control of their own."
        )
    apart = [a for a in attacks if a not in common.attacks and a not in bare]
    if apart:
        out.append(f"Not run on every eraser yet, so part of no mean and no worst attack: {', '.join(apart)}.")
    wanted = {b for m in found.values() for b in m.values}
    short = [name for name, m in found.items() if set(m.values) != wanted]
    if short:
        out.append(f"Not measured on every concept and seed yet: {', '.join(short)}.")
    out += _without_meaning(rows)
    failed: dict[str, list[SweepRow]] = {}
    for row in rows:
        if row.status == "failed":
            failed.setdefault(row.error, []).append(row)
    for error, several in failed.items():
        cells = f"{len(several)} cell{'s' if len(several) > 1 else ''}"
        names = list(dict.fromkeys(r.eraser for r in several))
        who = ", ".join(names) if len(names) <= NAMED else f"{len(names)} rows"
        out.append(f"{who}: {cells} failed ({', '.join(dict.fromkeys(r.concept for r in several))}): {error}")
    guards = [
        n
        for n, m in found.items()
        if n not in (UNTOUCHED, NEVER_TAUGHT) and not _means(m, ("numbers",), "fit").get("numbers")
    ]
    if guards and attacks:
        out.append(
            "These act while the model runs and change no weight, so attacks on weights meet nothing to undo, and whoever "
            f"has the weights has the concept: {', '.join(guards)}."
        )
    nothing = {
        name: [c for (c, _), row in m.values.items() if row.values.get("found") is False]
        for name, m in found.items()
        if name not in (UNTOUCHED, NEVER_TAUGHT)
    }
    for name, concepts in nothing.items():
        if concepts:
            out.append(f"{name} found nothing to erase for {', '.join(dict.fromkeys(concepts))}: counted as untouched.")
    return out


def _without_meaning(rows: Sequence[SweepRow]) -> list[str]:
    """Cells that do not apply, by reason."""
    why: dict[str, int] = {}
    for row in rows:
        if row.status == "does not apply":
            why[row.error] = why.get(row.error, 0) + 1
    return [f"{count} cell{'s do' if count > 1 else ' does'} not apply: {error}." for error, count in why.items()]
