"""One training step of a TopK autoencoder: this package beside other trainers, same rows, in one process.

    python benchmarks/sae_cpu.py [--width 768] [--expansion 16] [--batch 4096] [--k 32] [--steps 5] [--learn 12] [--busy] [--grow FILE.png]

Trainers that are not installed are left out: sae-lens comes with the test extra, `pip install eai-sparsify` adds
sparsify. The floor is the encoder's product alone. Times are medians over `--steps` steps that follow `--learn` of
them, because a trained encoder is harder to search than a random one; the loss is FVU on held-out rows after those
`--learn` steps, from one start for all, at one constant rate. Peak memory is the largest growth of the process during
a trainer's steps, its libraries loaded and its kernels made by a small step before. `--grow` times our step for
growing numbers of rows and features instead, and draws both.
`--busy` times each step again beside a process per core that does nothing but count: keys that end in `_busy`.
Ends with one line of JSON, which names the processor.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table
from torch import Tensor
from trainers import Start, Trainer, at_constant_rate, random_start

RATE = 2e-4


@dataclass(frozen=True)
class Task:
    d: int
    expansion: int
    batch: int
    k: int

    @property
    def features(self) -> int:
        return self.d * self.expansion

    def rows(self, number: int) -> Tensor:
        """Rows of as many planted directions as there are features, few of which are on, some often and most rarely."""
        mix = torch.randn(self.features, self.d, generator=torch.Generator().manual_seed(7)) / self.d**0.5
        g = torch.Generator().manual_seed(100 + number)
        rare = torch.rand(self.batch, self.k, generator=g).square() * self.features
        strengths = 0.5 + torch.rand(self.batch, self.k, generator=g)
        rows = torch.nn.functional.embedding_bag(rare.long(), mix, per_sample_weights=strengths, mode="sum")
        return rows * (self.d / self.k) ** 0.5  # a root mean square of about 1, which no trainer then rescales


def resident() -> float:
    """Megabytes that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@contextmanager
def peak() -> Iterator[list[float]]:
    """A list whose last entry becomes the largest growth in megabytes inside the block."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before, seen, over = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.003):
            seen[0] = max(seen[0], resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def milliseconds(fn: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count + 2):
        start = time.perf_counter()
        fn()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def grow(o: argparse.Namespace) -> None:
    """Step time for a quarter to twice the rows, and for a quarter to twice the features; a plot with lines fitted."""
    times: dict[str, dict[int, float]] = {"rows": {}, "features": {}}
    for share in (0.25, 0.5, 1.0, 1.5, 2.0):
        for which, task in (
            ("rows", Task(o.width, o.expansion, int(share * o.batch), o.k)),
            ("features", Task(o.width, int(share * o.expansion), o.batch, o.k)),
        ):
            rows = task.rows(0)
            trainer = at_constant_rate(RATE)["concept_probe"](random_start(rows, task.features, task.k, 0), rows)
            ms = milliseconds(lambda trainer=trainer, rows=rows: trainer.step(rows), o.steps)
            times[which][task.batch if which == "rows" else task.features] = ms
    figure = make_subplots(1, 2, subplot_titles=[f"{which} per step" for which in times])
    straight = {}
    for column, (which, seen) in enumerate(times.items(), 1):
        x, y = np.array(list(seen)), np.array(list(seen.values()))
        slope, base = np.polyfit(x, y, 1)
        straight[which] = float(1 - ((y - base - slope * x) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        for mode, ys in (("markers", y), ("lines", base + slope * x)):
            figure.add_scatter(x=x, y=ys, mode=mode, row=1, col=column, showlegend=False, line_color="#33658a")
        figure.update_xaxes(title_text=which, row=1, col=column)
        figure.update_yaxes(title_text="ms per step", rangemode="tozero", row=1, col=column)
    figure.update_layout(template="simple_white", width=900, height=340, margin={"t": 40, "r": 20})
    print(json.dumps({"ms": times, "r_squared_of_a_line": straight}))
    figure.write_image(o.grow)


@contextmanager
def other_work(count: int) -> Iterator[None]:
    """As many processes that do nothing but count, at the priority of this one."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def processor() -> str:
    """Its name, and which of the short products it has."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in lines.items()}
    has = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.processor() or platform.machine())} ({', '.join(has) or 'no avx'})"


def floor(rows: Tensor, features: int, dtype: torch.dtype) -> float:
    """Milliseconds of the encoder's product alone."""
    x, w = rows.to(dtype), torch.randn(features, rows.shape[1]).to(dtype)
    return min(milliseconds(lambda: x @ w.mT, 5), milliseconds(lambda: x @ w.mT, 5))


@dataclass(frozen=True)
class Measured:
    ms: float
    ms_busy: float
    peak_mb: float
    fvu: float


def measure(
    make: Callable[..., Trainer], start: Start, task: Task, rows: list[Tensor], o: argparse.Namespace
) -> Measured:
    """ImportError where the trainer is not installed."""
    small = Task(64, 4, 64, 4)
    make(random_start(small.rows(0), small.features, small.k, 0), small.rows(0)).step(small.rows(0))
    held = task.rows(10_000)
    with peak() as grown:
        trainer, turn = make(start, rows[0]), itertools.cycle(rows)
        for _ in range(o.learn):
            trainer.step(next(turn))
    fvu = float((held - trainer.written(held)).square().sum() / (held - held.mean(0)).square().sum())
    ms, busy = milliseconds(lambda: trainer.step(next(turn)), o.steps), float("nan")
    if o.busy:
        with other_work(os.cpu_count() or 1):
            busy = milliseconds(lambda: trainer.step(next(turn)), o.steps)
    return Measured(ms, busy, grown[0], fvu)


def told(floors: dict[str, float], ours: Measured, peers: dict[str, Measured], busy: bool) -> dict[str, object]:
    """The line of JSON."""

    def least(of: Callable[[Measured], float], which: str = "") -> float | None:
        return min((of(m) for name, m in peers.items() if which in name), default=None)

    lines: dict[str, object] = {"processor": processor(), "threads": torch.get_num_threads(), **floors}
    for ending, ms in [("", lambda m: m.ms), *([("_busy", lambda m: m.ms_busy)] if busy else [])]:
        lines |= {
            f"ours_ms{ending}": ms(ours),
            f"best_peer_f32_ms{ending}": least(ms, "float32"),
            f"best_peer_ms{ending}": least(ms),
            f"sae_lens_ms{ending}": least(ms, "sae-lens, float32"),
        }
    lines |= {"ours_fvu": ours.fvu, "best_peer_fvu": least(lambda m: m.fvu)}
    return lines | {"ours_peak_mb": ours.peak_mb, "best_peer_peak_mb": least(lambda m: m.peak_mb)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("width", 768), ("expansion", 16), ("batch", 4096), ("k", 32), ("steps", 5), ("learn", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--busy", action="store_true", help="time each also beside a spinning process per core")
    parser.add_argument("--grow", type=Path)
    o = parser.parse_args()
    if o.grow:
        return grow(o)
    task = Task(o.width, o.expansion, o.batch, o.k)
    rows = [task.rows(i) for i in range(8)]
    short = {"f32": torch.float32, "bf16": torch.bfloat16}
    floors = {f"floor_{name}_ms": floor(rows[0], task.features, dtype) for name, dtype in short.items()}
    if o.busy:
        with other_work(os.cpu_count() or 1):
            floors |= {f"floor_{name}_ms_busy": floor(rows[0], task.features, dtype) for name, dtype in short.items()}
    f32, bf16 = floors["floor_f32_ms"], floors["floor_bf16_ms"]
    busy = ("ms, busy",) if o.busy else ()
    table = Table("trainer", "ms per step", *busy, "x float32 floor", "x bfloat16 floor", "peak MB", "held-out FVU")
    table.title = processor()
    beside = (f"{floors['floor_f32_ms_busy']:.0f} / {floors['floor_bf16_ms_busy']:.0f}",) if o.busy else ()
    table.add_row("encoder product alone", f"{f32:.0f} / {bf16:.0f}", *beside, "", "", "", "")
    start = random_start(rows[0], task.features, task.k, seed=0)
    results: dict[str, Measured] = {}
    for name, make in at_constant_rate(RATE).items():
        try:
            m = results[name] = measure(make, start, task, rows, o)
        except ImportError as error:
            table.add_row(name, f"not installed ({error.name})", *("" for _ in busy), "", "", "", "")
            continue
        beside = (f"{m.ms_busy:.0f}",) if o.busy else ()
        whole = (f"{m.ms / f32:.2f}", f"{m.ms / bf16:.2f}", f"{m.peak_mb:.0f}", f"{m.fvu:.4f}")
        table.add_row(name, f"{m.ms:.0f}", *beside, *whole)
    Console(width=120).print(table)
    print(json.dumps(told(floors, results.pop("concept_probe"), results, o.busy)))


if __name__ == "__main__":
    main()
