"""How close sparse autoencoder training comes to its floor on a GPU: the encoder's matrix product.

    python benchmarks/sae_gpu.py [--size 768 12288 32 4096] [--steps 60]

Per size (d, f, k, rows): each sparse product in Triton and in torch against the encoder's own product, then a whole
training step against the same floor. Times are medians on CUDA events; before each repetition the cache is
overwritten. Features fire by a power law, as trained ones do. Ends with one line of JSON; without a CUDA
device that line is {"cuda": false}.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from concept_probe.learn import TrainingOptions, kernels, train_sae
from concept_probe.learn.kernels import by_feature, torch_ops, triton_ops
from concept_probe.types import Site

SIZES = [(768, 12_288, 32, 4096), (2048, 65_536, 64, 8192), (4096, 131_072, 64, 16_384)]
REPETITIONS, WARM_UP = 50, 10
CACHE_BYTES = 256 << 20
console = Console(stderr=True)


def milliseconds(operation: Callable[[], object]) -> float:
    """Median time of one run on the device, its inputs not in the cache."""
    cache = torch.empty(CACHE_BYTES, dtype=torch.int8, device="cuda")
    pairs = []
    for _ in range(WARM_UP + REPETITIONS):
        cache.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        operation()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs[WARM_UP:])


def power_law(n: int, f: int, k: int) -> Tensor:
    """int32 (n, k): different features in each row, the j-th drawn about in proportion to 1 / j."""
    log_share = -torch.arange(1, f + 1, device="cuda", dtype=torch.float32).log()
    blocks = []
    for rows in range(0, n, 512):
        noise = torch.rand(min(512, n - rows), f, device="cuda").clamp_min_(1e-20)
        blocks.append((log_share - (-noise.log_()).log_()).topk(k, dim=1).indices)
    return torch.cat(blocks).int()


def products(d: int, f: int, k: int, n: int) -> dict[str, float]:
    """Milliseconds of everything a step is made of."""
    x, rows, bias = torch.randn(n, d, device="cuda"), torch.randn(f, d, device="cuda"), torch.randn(d, device="cuda")
    values, indices = torch.rand(n, k, device="cuda"), power_law(n, f, k)
    order = by_feature(indices, f)
    short, short_rows = x.bfloat16(), rows.bfloat16()
    times = {
        "encoder bfloat16": milliseconds(lambda: short @ short_rows.mT),
        "encoder float32": milliseconds(lambda: x @ rows.mT),
    }
    pre = short @ short_rows.mT
    times["topk"] = milliseconds(lambda: pre.topk(k, dim=1, sorted=False))
    del pre
    times["by_feature"] = milliseconds(lambda: by_feature(indices, f))
    for name, home in (("triton", triton_ops), ("torch", torch_ops)):
        times[f"weighted_rows {name}"] = milliseconds(lambda home=home: home.weighted_rows(values, indices, rows))
        times[f"row_products {name}"] = milliseconds(lambda home=home: home.row_products(x, indices, rows))
        times[f"scatter_rows {name}"] = milliseconds(lambda home=home: home.scatter_rows(values, order, x))

    def unfused():
        error = x - (torch_ops.weighted_rows(values, indices, rows) + bias)
        return error, error.square().sum(1)

    times["decode_error triton"] = milliseconds(lambda: triton_ops.decode_error(values, indices, rows, bias, x))
    times["decode_error torch"] = milliseconds(unfused)
    return times


def step(d: int, f: int, k: int, n: int, steps: int, auxk: int | None) -> float:
    """Median milliseconds from one `on_step` of `train_sae` to the next, after a third of the run."""
    held = [torch.randn(n, d, device="cuda") for _ in range(4)]

    def rows() -> Iterator[Tensor]:
        yield from itertools.islice(itertools.cycle(held), steps)

    events: list[torch.cuda.Event] = []

    def on_step(_) -> None:
        events.append(torch.cuda.Event(enable_timing=True))
        events[-1].record()

    site = Site("model", "synthetic")
    options = TrainingOptions(batch=n, auxk=auxk)
    train_sae(rows(), site=site, k=k, expansion=f // d, samples=steps * n, on_step=on_step, options=options)
    torch.cuda.synchronize()
    late = list(itertools.pairwise(events))[steps // 3 :]
    return statistics.median(start.elapsed_time(end) for start, end in late)


def measure(size: Sequence[int], steps: int) -> dict[str, object]:
    d, f, k, n = size
    times = products(d, f, k, n)
    torch.cuda.empty_cache()
    times["step"] = step(d, f, k, n, steps, auxk=0)
    times["step with AuxK"] = step(d, f, k, n, steps, auxk=None)
    floor = times["encoder bfloat16"]
    table = Table("", "ms", "of the bfloat16 encoder", title=f"d {d}, f {f}, k {k}, {n} rows")
    for name, time in times.items():
        table.add_row(name, f"{time:.3f}", f"{time / floor:.2f}")
    console.print(table)
    return {"d": d, "f": f, "k": k, "rows": n, "ms": times}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs=4, action="append", metavar=("d", "f", "k", "rows"))
    parser.add_argument("--steps", type=int, default=60)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        console.print("There is no CUDA device; nothing was measured.")
        print(json.dumps({"cuda": False}))
        return
    one = torch.ones(1, device="cuda")
    if not triton_ops.available(one):
        raise SystemExit("triton is not installed; pip install triton")
    out = []
    for size in chosen.size or SIZES:
        d, f, _, n = size
        # Weights, gradients, two moments and bfloat16 copies; a batch's pre-activations of both precisions.
        needed, free = 6 * 2 * f * d * 4 + 6 * n * f + 8 * n * d * 4, torch.cuda.mem_get_info()[0]
        if needed > free:
            console.print(f"left out {tuple(size)}: needs about {needed / 2**30:.0f} GiB, {free / 2**30:.0f} are free")
            continue
        out.append(measure(size, chosen.steps))
        torch.cuda.empty_cache()
    used = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(json.dumps({"cuda": True, **used, "steps_ran_on": kernels._home(one).__name__, "sizes": out}))


if __name__ == "__main__":
    main()
