"""Time UCE, RECE and SPEED on the cross-attention of a random model of SD 1.4's shape, and print condition numbers.

    python benchmarks/closed_form.py [--concepts 1 10 100] [--tokens 1]

32 matrices (keys and values of 16 blocks) read text states 768 wide. Each concept moves `--tokens` tokens (1: its last
subject token); 1,000 tokens are preserved. States are random with the spread of a text encoder's: a common mean and
decaying directions. Timed is all that an edit takes once the states are there: sums, solve, and the low-rank change of
every matrix. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from concept_probe.erasers.closed_form.null_space import null_projector
from concept_probe.erasers.closed_form.rece import Rounds, solve_rece
from concept_probe.erasers.closed_form.solve import Moments, Solution, factors, solve_uce
from concept_probe.erasers.closed_form.speed import augmented, influenced, solve_speed
from concept_probe.erasers.closed_form.states import TokenStates

WIDTH = 768
ROWS = (320,) * 5 + (640,) * 5 + (1280,) * 6
"""Output width of each of the 16 cross-attentions of SD 1.4."""
PRESERVED = 1000


def states(count: int, generator: torch.Generator) -> Tensor:
    """Random rows (count, 768) with a common mean and directions that fall off as 1/sqrt(i)."""
    spread = 1 / torch.arange(1, WIDTH + 1, dtype=torch.float64).sqrt()
    mean = torch.randn(WIDTH, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return mean + torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) * spread * 5


def applied(weights: list[Tensor], change: Tensor, rank: int) -> list[tuple[Tensor, Tensor]]:
    """The change of every matrix as (u, v)."""
    left, right = factors(change, rank)
    return [(w @ left.float(), right.float()) for w in weights]


def stack_of(weights: list[Tensor]) -> Tensor:
    total = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for w in weights:
        total += (w.mT @ w).double()
    return total


def uce(weights: list[Tensor], c: Tensor, g: Tensor, p: Tensor) -> Solution:
    sums = Moments.of(c, g, p)
    alpha, beta = sums.weights(1.0, 1.0, "mean")
    solution = solve_uce(sums, lam=0.1, alpha=alpha, beta=beta, method="uce")
    applied(weights, solution.change, len(c))
    return solution


def rece(weights: list[Tensor], c: Tensor, g: Tensor, p: Tensor) -> Solution:
    given, stack = TokenStates(c, g, p, {}), stack_of(weights)
    alpha, beta = given.moments().weights(1.0, 1.0, "mean")
    rounds = Rounds(2, 0.01 * float(stack.diagonal().mean()), 1.0)
    got = solve_rece(given, stack, rounds, lam=0.1, alpha=alpha, beta=beta).solution
    applied(weights, got.change, len(c) * (rounds.count + 1))
    return got


def speed(weights: list[Tensor], c: Tensor, g: Tensor, p: Tensor) -> Solution:
    sums, stack = Moments.of(c, g, p), stack_of(weights)
    empty = p[:2]
    free = solve_speed(sums, torch.eye(WIDTH, dtype=torch.float64), empty[:0], rho=1.0, lam=1e-6)
    retain = augmented(p[influenced(p, free.change, stack, 1.0)], stack, 10, 1, seed=0)
    projector = null_projector(retain.mT @ retain, 0.03)
    solution = solve_speed(sums, projector, empty, rho=1.0, lam=1e-6)
    applied(weights, solution.change, len(c))
    return solution


METHODS = {"uce": uce, "rece": rece, "speed": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--tokens", type=int, default=1, help="moved tokens per concept")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(n, WIDTH, generator=generator) / WIDTH**0.5 for n in ROWS for _ in range(2)]
    preserve = states(PRESERVED, generator)
    figures: dict[str, object] = {
        "threads": torch.get_num_threads(),
        "matrices": len(weights),
        "tokens": options.tokens,
    }
    table = Table("eraser", "concepts", "seconds", "condition", "residual")
    for name, method in METHODS.items():
        for count in options.concepts:
            c, g = states(count * options.tokens, generator), states(count * options.tokens, generator)
            seconds = []
            for _ in range(options.repeats):
                start = time.perf_counter()
                solution = method(weights, c, g, preserve)
                seconds.append(time.perf_counter() - start)
            best = min(seconds)
            table.add_row(name, str(count), f"{best:.2f}", f"{solution.condition:.3g}", f"{solution.residual:.1e}")
            figures[f"{name}_{count}"] = {"seconds": round(best, 3), "condition": float(f"{solution.condition:.4g}")}
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
