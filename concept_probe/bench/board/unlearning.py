"""From rows of a language model to tables: indices and verdicts over the facts of several concepts, by eraser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from concept_probe.auditing import Thresholds, decide
from concept_probe.auditing.verdict import largest_index
from concept_probe.bench.sweep.grid import NEVER_TAUGHT, NONE, UNTOUCHED
from concept_probe.bench.sweep.store import SweepRow
from concept_probe.evaluation.bayesian import BayesianBootstrap, Draws, damage_score, residual_index
from concept_probe.types import Score, Verdict

TEXT_KINDS = ("target", "paraphrases", "neighbours", "unrelated")


def records(rows: Sequence[SweepRow]) -> list[dict[str, Any]]:
    """One record per eraser and concept: what was kept of each text, and per attack the hits of its best point.

    They are in the order of the concepts' names, so that intervals don't depend on which was measured first.
    """
    out: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        one = out.setdefault((row.concept, row.eraser), {"concept": row.concept, "eraser": row.eraser, "seconds": 0.0})
        one["seconds"] += row.seconds
        if row.attack != NONE:
            one.setdefault("attacks", {})[row.attack] = row.values.get("hits", [])
        elif row.status == "done":
            one |= {"texts": row.values["texts"], "cosine": row.values["cosine"]}
            one["seconds"] += row.values["fit"]["seconds"]
    whole = [one | {"attacks": one.get("attacks", {})} for one in out.values() if "texts" in one]
    return sorted(whole, key=lambda r: r["concept"])


Record = Mapping[str, Any]


def attacks_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The attacks that were run, in the order of the sweep."""
    return tuple(dict.fromkeys(name for one in records for name in one["attacks"]))


def mean_per_fact(row: Record, kind: str, what: str = "hits") -> list[float]:
    """One number per fact: the mean over its wordings."""
    seen = row["texts"][kind]
    groups: dict[str, list[float]] = {}
    for fact, value in zip(seen["facts"], seen[what], strict=True):
        groups.setdefault(fact, []).append(value)
    return [sum(v) / len(v) for v in groups.values()]


def joined(rows: Sequence[Record], kind: str, what: str = "hits") -> Tensor:
    """(facts, 1) over several concepts."""
    return torch.tensor([x for r in rows for x in mean_per_fact(r, kind, what)], dtype=torch.float64)[:, None]


def judged(after: Sequence[Record], before: Sequence[Record], never: Sequence[Record]) -> tuple[Verdict, list[Score]]:
    """The verdict and all indices of rows of one eraser, concepts in the same order as in `before` and `never`.

    `never` is empty where nothing is known to be untaught: then texts for other prompts that say one of the concept's
    answers stand in for it.
    """
    bootstrap, gap = BayesianBootstrap(), Thresholds().gap
    arm = "before" if after == before else "control" if after == never else "after"

    def draw(rows: Sequence[Record], kind: str, name: str, what: str = "hits") -> Draws:
        return bootstrap.rate(joined(rows, kind, what), f"{kind}/{what}", name)

    def attack(rows: Sequence[Record], name: str, of: str) -> Draws | None:
        hits = [h for r in rows for h in r["attacks"].get(name, [])]
        return bootstrap.rate(torch.tensor(hits, dtype=torch.float64)[:, None], name, of) if hits else None

    wrong = [m for r in before for k in TEXT_KINDS[2:] for m in mean_per_fact(r, k, "mistaken")]
    mistakes = bootstrap.rate(torch.tensor(wrong, dtype=torch.float64)[:, None], "mistakes", "before")
    direct, scores, recovered = None, [], []
    for kind in TEXT_KINDS[:2]:
        absent = draw(never, kind, "control") if never else mistakes
        score = residual_index(kind, draw(before, kind, "before"), draw(after, kind, arm), absent, gap)
        direct = score if kind == "target" else direct
        scores += [score] if score else []
        if never:
            then, now, no = (
                draw(rows, kind, of, "probability")
                for rows, of in ((before, "before"), (after, arm), (never, "control"))
            )
            score = residual_index(f"probability, {kind}", then, now, no, gap)
            scores += [score] if score else []
    for name in attacks_of(after):
        mine, base = attack(after, name, arm), attack(never, name, "control") if never else mistakes
        if mine is not None and base is not None:
            score = residual_index(name, draw(before, "target", "before"), mine, base, gap)
            recovered += [score] if score else []
    losses = [s for k in TEXT_KINDS[2:] if (s := damage_score(k, draw(before, k, "before"), draw(after, k, arm)))]
    others = {"behaviour": [s for s in scores if s is not direct], "recovery": recovered}
    return decide(direct, others, losses), [*scores, *recovered]


def mean_over_facts(values: Sequence[float], key: str) -> tuple[float, float, float]:
    """Mean of one value per fact, and its 95 % interval; `key` names the draws."""
    low, high = BayesianBootstrap().mean(torch.tensor(values, dtype=torch.float64), key)
    return sum(values) / len(values), low, high


def records_of(rows: Sequence[Record], eraser: str, concepts: Sequence[str]) -> list[Record]:
    """The eraser's records of these concepts, as far as there are any."""
    by = {r["concept"]: r for r in rows if r["eraser"] == eraser}
    return [by[c] for c in concepts if c in by]


def _spanned(values: Sequence[float], key: str) -> str:
    """Mean with its interval; nothing where there are no values."""
    return "{:z.2f} [{:z.2f}, {:z.2f}]".format(*mean_over_facts(values, key)) if values else ""


def best_hits(rows: Sequence[Record], attack: str) -> list[float]:
    """0 or 1 per text of an attack's best point, over several concepts."""
    return [float(h) for r in rows for h in r["attacks"].get(attack, [])]


def unlearning_figures(own: Sequence[Record], eraser: str) -> dict[str, Any] | None:
    """What one eraser's rows of a kind of concepts come to; None where their controls are not measured yet."""
    of = [r for r in own if r["eraser"] == eraser]
    names = [r["concept"] for r in of]
    before, never = records_of(own, UNTOUCHED, names), records_of(own, NEVER_TAUGHT, names)
    twin = any(r["eraser"] == NEVER_TAUGHT for r in own)
    if len(before) < len(of) or (twin and len(never) < len(of)):
        return None
    verdict, scores = judged(of, before, never)
    single = Counter(
        judged([r], records_of(own, UNTOUCHED, [r["concept"]]), records_of(own, NEVER_TAUGHT, [r["concept"]]))[0].name
        for r in of
    )
    worst, attacks = largest_index(scores), {a: best_hits(of, a) for a in attacks_of(of)}
    return {
        "concepts": len(of), **{k: float(joined(of, k).mean()) for k in TEXT_KINDS},
        "attacks": {a: sum(h) / len(h) if h else None for a, h in attacks.items()},
        "verdict": verdict.name, "verdicts": dict(single), "cosine": sum(r["cosine"] for r in of) / len(of),
        "residual": worst and {"of": worst.name, "value": worst.value, "low": worst.low, "high": worst.high},
    }  # fmt: skip


def unlearning_tables(own: Sequence[Record], found: Mapping[str, dict]) -> tuple[Table, Table]:
    """What is written and the verdict; what attacks regain. One row per eraser, means with intervals over facts."""
    written = Table("eraser", "concepts", *TEXT_KINDS, "residual", "cosine", "s", "verdict", box=box.MARKDOWN)
    attacks = attacks_of(own)
    regained = Table("eraser", *attacks, box=box.MARKDOWN)
    for eraser, one in found.items():
        of, worst = [r for r in own if r["eraser"] == eraser], one["residual"]
        written.add_row(
            eraser, str(len(of)), *(_spanned(joined(of, k)[:, 0].tolist(), k) for k in TEXT_KINDS),
            "" if worst is None else f"{worst['value']:z.2f} [{worst['low']:z.2f}, {worst['high']:z.2f}] {worst['of']}",
            f"{one['cosine']:.2f}", f"{sum(r['seconds'] for r in of) / len(of):.0f}",
            f"{one['verdict']} ({', '.join(f'{n} {v}' for v, n in one['verdicts'].items())})",
        )  # fmt: skip
        regained.add_row(eraser, *(_spanned(best_hits(of, a), a) for a in attacks))
    return written, regained
