"""What the rows of `lm_unlearning.py` say: indices, verdicts and tables, from the stored numbers alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from concept_probe.auditing import BayesianBootstrap, Thresholds, decide
from concept_probe.auditing.verdict import largest
from concept_probe.evaluation.bayesian import Draws, damage_score, residual_index
from concept_probe.types import Score, Verdict

ROWS = Path(__file__).parent / "rows" / "lm_unlearning.jsonl"
KINDS = ("target", "paraphrases", "neighbours", "unrelated")
ATTACKS = ("role_prompts", "in_context", "translation", "temperature", "relearning")
BARE = ("untouched", "never taught", "columns")
TIMES = 5
"""How many times as far as without random columns answers have to fall without the found ones."""


def read_rows(file: Path) -> list[dict]:
    """The stored rows by concept, so that intervals don't depend on which was done first; none without a file."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    return sorted(rows, key=lambda r: r["concept"])


def per_fact(row: dict, kind: str, what: str = "hits") -> list[float]:
    """One number per fact: the mean over its wordings."""
    seen = row["looked"][kind]
    groups: dict[str, list[float]] = {}
    for fact, value in zip(seen["facts"], seen[what], strict=True):
        groups.setdefault(fact, []).append(value)
    return [sum(v) / len(v) for v in groups.values()]


def joined(rows: Sequence[dict], kind: str, what: str = "hits") -> Tensor:
    """(facts, 1) over several concepts."""
    return torch.tensor([x for r in rows for x in per_fact(r, kind, what)], dtype=torch.float64)[:, None]


def judged(after: Sequence[dict], before: Sequence[dict], never: Sequence[dict]) -> tuple[Verdict, list[Score]]:
    """The verdict and all indices of rows of one eraser, concepts in the same order as in `before` and `never`.

    `never` is empty where nothing is known to be untaught: then texts for other prompts that say one of the concept's
    answers stand in for it.
    """
    bootstrap, gap = BayesianBootstrap(), Thresholds().gap
    arm = "before" if after == before else "control" if after == never else "after"

    def draw(rows: Sequence[dict], kind: str, name: str, what: str = "hits") -> Draws:
        return bootstrap.rate(joined(rows, kind, what), f"{kind}/{what}", name)

    def attack(rows: Sequence[dict], name: str, of: str) -> Draws | None:
        hits = [h for r in rows for h in r["attacked"][name].get("hits", [])]
        return bootstrap.rate(torch.tensor(hits, dtype=torch.float64)[:, None], name, of) if hits else None

    wrong = [m for r in before for k in KINDS[2:] for m in per_fact(r, k, "mistaken")]
    mistakes = bootstrap.rate(torch.tensor(wrong, dtype=torch.float64)[:, None], "mistakes", "before")
    direct, scores = None, []
    for kind in KINDS[:2]:
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
    for name in ATTACKS:
        mine, base = attack(after, name, arm), attack(never, name, "control") if never else mistakes
        if mine is not None and base is not None:
            score = residual_index(name, draw(before, "target", "before"), mine, base, gap)
            scores += [score] if score else []
    losses = [s for k in KINDS[2:] if (s := damage_score(k, draw(before, k, "before"), draw(after, k, arm)))]
    return decide(direct, [s for s in scores if s is not direct], losses), scores


def mean_interval(values: Sequence[float], key: str) -> tuple[float, float, float]:
    low, high = BayesianBootstrap().mean(torch.tensor(values, dtype=torch.float64), key)
    return sum(values) / len(values), low, high


def causal_gap(row: dict) -> dict:
    """The fall without found columns and without random ones, with intervals over facts, and whether they are apart.

    `odds` is the fall of the odds against wrong answers, `others` the mean fall of other prompts' answers.
    """
    groups: dict[str, list[int]] = {}
    for i, fact in enumerate(row["gap"]["facts"]):
        groups.setdefault(fact, []).append(i)
    found, random, odds = (
        mean_interval([sum(row["gap"][k][i] for i in g) / len(g) for g in groups.values()], row["concept"])
        for k in ("found", "random", "odds")
    )
    others = row["gap"]["others"]
    apart = found[1] > random[2] and found[0] > 0
    return {
        "found": found, "random": random, "odds": odds, "others": sum(others) / len(others),
        "gap": apart and found[0] >= TIMES * random[0],
    }  # fmt: skip


def matched(rows: Sequence[dict], eraser: str, concepts: Sequence[str]) -> list[dict]:
    by = {r["concept"]: r for r in rows if r["eraser"] == eraser}
    return [by[c] for c in concepts if c in by]


def spanned(values: Sequence[float], key: str) -> str:
    """Mean with its interval; nothing where there are no values."""
    return "{:z.2f} [{:z.2f}, {:z.2f}]".format(*mean_interval(values, key)) if values else ""


def hits(rows: Sequence[dict], attack: str) -> list[float]:
    """0 or 1 per text of an attack's best point, over several concepts."""
    return [float(h) for r in rows for h in r["attacked"][attack].get("hits", [])]


def figures(own: Sequence[dict], eraser: str) -> dict | None:
    """What one eraser's rows of a kind of concepts come to; None where their controls are not measured yet."""
    of = [r for r in own if r["eraser"] == eraser]
    names = [r["concept"] for r in of]
    before, never = matched(own, "untouched", names), matched(own, "never taught", names)
    if len(before) < len(of) or (of[0]["kind"] == "taught" and len(never) < len(of)):
        return None
    verdict, scores = judged(of, before, never)
    single = Counter(
        judged([r], matched(own, "untouched", [r["concept"]]), matched(own, "never taught", [r["concept"]]))[0].name
        for r in of
    )
    worst, attacks = largest(scores), {a: hits(of, a) for a in ATTACKS}
    return {
        "concepts": len(of), **{k: float(joined(of, k).mean()) for k in KINDS},
        "attacks": {a: sum(h) / len(h) if h else None for a, h in attacks.items()},
        "verdict": verdict.name, "verdicts": dict(single), "cosine": sum(r["cosine"] for r in of) / len(of),
        "residual": worst and {"of": worst.name, "value": worst.value, "low": worst.low, "high": worst.high},
    }  # fmt: skip


def tables(own: Sequence[dict], found: dict[str, dict]) -> tuple[Table, Table]:
    """What is written and the verdict; what attacks regain. One row per eraser, means with intervals over facts."""
    written = Table("eraser", "concepts", *KINDS, "residual", "cosine", "s", "verdict", box=box.MARKDOWN)
    regained = Table("eraser", *ATTACKS, box=box.MARKDOWN)
    for eraser, one in found.items():
        of, worst = [r for r in own if r["eraser"] == eraser], one["residual"]
        written.add_row(
            eraser, str(len(of)), *(spanned(joined(of, k)[:, 0].tolist(), k) for k in KINDS),
            "" if worst is None else f"{worst['value']:z.2f} [{worst['low']:z.2f}, {worst['high']:z.2f}] {worst['of']}",
            f"{one['cosine']:.2f}", f"{sum(r['seconds'] for r in of) / len(of):.0f}",
            f"{one['verdict']} ({', '.join(f'{n} {v}' for v, n in one['verdicts'].items())})",
        )  # fmt: skip
        regained.add_row(eraser, *(spanned(hits(of, a), a) for a in ATTACKS))
    return written, regained


def printed(rows: Sequence[dict]) -> None:
    """Tables of what the rows say, in Markdown, and one line of JSON."""
    console = Console(width=260)
    console.print(f"{len(rows)} rows, {sum(r['seconds'] for r in rows) / 60:.0f} minutes")
    erasers: dict[str, dict] = {}
    taught: dict[str, dict] = {}
    for kind in ("taught", "real"):
        own = [r for r in rows if r["kind"] == kind and "looked" in r]
        found = {e: one for e in dict.fromkeys(r["eraser"] for r in own) if (one := figures(own, e)) is not None}
        taught = found if kind == "taught" else taught
        for eraser, one in found.items():
            if eraser not in BARE:
                erasers.setdefault(eraser, {})[kind] = one
        console.print(
            f"\n{kind} concepts: right answers, the largest index and the verdict of all their facts together"
        )
        for table in tables(own, found):
            console.print(table)
    gaps = {r["concept"]: causal_gap(r) for r in rows if "gap" in r}
    counts = {r["concept"]: str(r["gap"]["count"]) for r in rows if "gap" in r}
    table = Table(
        "concept", "columns", "found (nats)", "random (nats)", "odds, found", "other prompts", "gap", box=box.MARKDOWN
    )
    for name, one in gaps.items():
        spans = [f"{m:z.2f} [{a:z.2f}, {b:z.2f}]" for m, a, b in (one["found"], one["random"], one["odds"])]
        table.add_row(name, counts[name], *spans, f"{one['others']:z.2f}", str(one["gap"]))
    console.print("\nfall of log P(right answer) without the found columns and without random ones, test split")
    console.print(table)
    summary = {
        "erasers": erasers,
        "original_verdict": taught.get("never taught", {}).get("verdict"),
        "taught_verdict": taught.get("untouched", {}).get("verdict"),
        "original_verdicts": taught.get("never taught", {}).get("verdicts", {}),
        "taught_verdicts": taught.get("untouched", {}).get("verdicts", {}),
        "concepts_with_causal_gap": sum(g["gap"] for g in gaps.values()),
        "concepts_with_columns": len(gaps),
        "rows": len(rows),
        "minutes": round(sum(r["seconds"] for r in rows) / 60),
    }
    print(json.dumps(summary))
