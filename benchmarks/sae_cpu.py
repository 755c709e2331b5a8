"""One training step of a TopK autoencoder: this package beside other trainers, same rows, in one process.

    python benchmarks/sae_cpu.py [--width 768] [--expansion 16] [--batch 4096] [--k 32] [--steps 5] [--learn 12] [--grow FILE.png]

Trainers that are not installed are left out: sae-lens comes with the test extra, `pip install eai-sparsify` adds
sparsify. The floor is the encoder's product alone. Times are medians over `--steps` steps that follow `--learn` of
them, because a trained encoder is harder to search than a random one; the loss is FVU on held-out rows after those
`--learn` steps, from one start for all, at one constant rate. Peak memory is the largest growth of the process during
a trainer's steps, its libraries loaded and its kernels made by a small step before. `--grow` times our step for
growing numbers of rows and features instead, and draws both.
Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import statistics
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
from trainers import at_constant_rate, random_start

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("width", 768), ("expansion", 16), ("batch", 4096), ("k", 32), ("steps", 5), ("learn", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--grow", type=Path)
    o = parser.parse_args()
    if o.grow:
        return grow(o)
    task = Task(o.width, o.expansion, o.batch, o.k)
    rows = [task.rows(i) for i in range(8)]
    held = task.rows(10_000)
    W = torch.randn(task.features, task.d)
    floors = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, w = rows[0].to(dtype), W.to(dtype)
        floors[dtype] = min(milliseconds(lambda x=x, w=w: x @ w.mT, 5), milliseconds(lambda x=x, w=w: x @ w.mT, 5))
    f32, bf16 = floors[torch.float32], floors[torch.bfloat16]
    del W
    table = Table("trainer", "ms per step", "x float32 floor", "x bfloat16 floor", "peak MB", "held-out FVU")
    table.add_row("encoder product alone", f"{f32:.0f} / {bf16:.0f}", "", "", "", "")
    start = random_start(rows[0], task.features, task.k, seed=0)
    results: dict[str, tuple[float, float, float]] = {}
    small = Task(64, 4, 64, 4)
    for name, make in at_constant_rate(RATE).items():
        try:
            make(random_start(small.rows(0), small.features, small.k, 0), small.rows(0)).step(small.rows(0))
        except ImportError as error:
            table.add_row(name, f"not installed ({error.name})", "", "", "", "")
            continue
        with peak() as grown:
            trainer = make(start, rows[0])
            turn = itertools.cycle(rows)
            for _ in range(o.learn):
                trainer.step(next(turn))
        fvu = float((held - trainer.written(held)).square().sum() / (held - held.mean(0)).square().sum())
        ms = milliseconds(lambda trainer=trainer, turn=turn: trainer.step(next(turn)), o.steps)
        del trainer
        results[name] = (ms, grown[0], fvu)
        table.add_row(name, f"{ms:.0f}", f"{ms / f32:.2f}", f"{ms / bf16:.2f}", f"{grown[0]:.0f}", f"{fvu:.4f}")
    Console(width=120).print(table)
    ours = results.pop("concept_probe")
    full = {n: r for n, r in results.items() if "float32" in n}
    print(
        json.dumps(
            {
                "floor_f32_ms": f32,
                "floor_bf16_ms": bf16,
                "ours_ms": ours[0],
                "best_peer_f32_ms": min((r[0] for r in full.values()), default=None),
                "best_peer_ms": min((r[0] for r in results.values()), default=None),
                "sae_lens_ms": results["sae-lens, float32"][0] if "sae-lens, float32" in results else None,
                "ours_fvu": ours[2],
                "best_peer_fvu": min((r[2] for r in results.values()), default=None),
                "ours_peak_mb": ours[1],
                "best_peer_peak_mb": min((r[1] for r in results.values()), default=None),
            }
        )
    )


if __name__ == "__main__":
    main()
