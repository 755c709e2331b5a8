"""The command that benchmarks share which are a grid: measure what has no row yet, or print the rows that there are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from concept_probe.bench import AttackSetting, MethodSetting, RowStore, SweepOrder, SweepRow, helpers, work
from concept_probe.registry import look_up

Named = TypeVar("Named", MethodSetting, AttackSetting)
FOLDER = Path(__file__).parent / "rows"


@dataclass(frozen=True)
class Table:
    """A grid, by the names that can be chosen on the command line, and what its rows come to."""

    about: str
    """The script's docstring."""
    rows: str
    """Name of the file in benchmarks/rows."""
    orders: Callable[[argparse.Namespace], list[SweepOrder]]
    """From `concepts`, `erasers`, `attacks` and `seeds` (lists of names), and `rows` and `work`, to what is measured."""
    summary: Callable[[list[SweepRow], argparse.Namespace], dict[str, Any]]
    """Prints tables; returns the figures of the last line."""
    concepts: Sequence[str]
    erasers: Sequence[str]
    attacks: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Adds options of its own."""


def named(things: Sequence[Named], names: Sequence[str]) -> tuple[Named, ...]:
    """Those of these names; all for `all`. Raises UnknownName."""
    known = {thing.name: thing for thing in things}
    return tuple(look_up(known, name, "row or column") for name in (known if list(names) == ["all"] else names))


def main(table: Table) -> None:
    parser = argparse.ArgumentParser(description=table.about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="*", default=list(table.concepts), choices=table.concepts)
    parser.add_argument("--seeds", nargs="*", type=int, default=list(table.seeds))
    parser.add_argument("--erasers", nargs="*", default=list(table.erasers), help="names of the table, or all")
    parser.add_argument("--attacks", nargs="*", default=list(table.attacks), help="names of the table, or all")
    parser.add_argument(
        "--rows", type=Path, default=FOLDER / f"{table.rows}.jsonl", help="where finished rows are kept"
    )
    parser.add_argument("--work", type=Path, default=Path("runs") / table.rows, help="where fits are kept")
    parser.add_argument("--count", type=int, help="answers per kind of prompt without attack; another is another sweep")
    parser.add_argument("--processes", type=int, default=1, help="how many measure cells at once")
    parser.add_argument("--threads", type=int, help="of torch, per process")
    parser.add_argument("--retry", action="store_true", help="measure failed cells again")
    parser.add_argument("--summary", action="store_true", help="print what the stored rows say, run nothing")
    parser.add_argument("--output", type=Path, help="folder for what the summary writes")
    table.more(parser)
    options = parser.parse_args()
    for order in [] if options.summary else table.orders(options):
        measure(replace(order, retry=options.retry, threads=options.threads), options.processes)
    rows = list(RowStore(options.rows).rows().values())
    if not rows:
        raise SystemExit(f"{options.rows} holds no rows yet: run without --summary first")
    print(json.dumps(table.summary(rows, options)))


def measure(order: SweepOrder, processes: int) -> None:
    """Every cell of the order that has no row yet, each printed when it is on disk."""
    console = Console(stderr=True)

    def tell(row: SweepRow) -> None:
        what = row.error if row.status == "failed" else f"{row.seconds:.1f} s"
        console.print(row.seed, row.concept, row.eraser, row.attack, what, highlight=False, markup=False)

    with helpers(order, processes - 1):
        work(order, tell)
