"""How much memory evaluation takes on 12,288 features, whatever the number of rows.

    python benchmarks/evaluation_memory.py ROWS

Random rows of width 32, 20 to a prompt, made as they are read; FVU, L0, dead features, density and neighbours.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import concept_probe as cp
from concept_probe.learn import TopK
from concept_probe.types import Prompt, Site, unit

SITE, D, F, SHARD, PER_PROMPT = Site("made", "up"), 32, 12_288, 65_536, 20


@dataclass(frozen=True)
class Rows:
    x: Tensor
    columns: dict[str, Tensor]


class Made:
    """A store whose shards are drawn when they are asked for."""

    sites = (SITE,)

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.prompts = tuple(Prompt(f"prompt {i}") for i in range(-(-rows // PER_PROMPT)))

    def width(self, site: Site) -> int:
        return D

    def read(self, site: Site, *, columns: bool = True) -> Rows:
        raise NotImplementedError("all rows at once are what is to be avoided")

    def blocks(self, site: Site) -> Iterator[Rows]:
        for start in range(0, self.rows, SHARD):
            count = min(SHARD, self.rows - start)
            x = torch.randn(count, D, generator=torch.Generator().manual_seed(start))
            yield Rows(x, {"prompt": torch.arange(start, start + count) // PER_PROMPT})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    rows = parser.parse_args().rows
    W_dec = unit(torch.randn(F, D, generator=torch.Generator().manual_seed(1)), dim=1)
    W_enc, b_enc, b_dec = W_dec.mT.contiguous(), torch.zeros(F), torch.zeros(D)
    sae = cp.Sae(SITE, TopK(32), W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec)
    started, before = time.perf_counter(), _peak()
    held = Made(rows)
    for score in (*cp.evaluate_sae(sae, held), *cp.feature_density(sae, held).scores, cp.decoder_neighbours(sae).score):
        print(score)
    print(f"{rows:,} rows: {_peak():.2f} GB at most, {before:.2f} GB before, {time.perf_counter() - started:.0f} s")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
