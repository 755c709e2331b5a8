"""Rows per second of every source that training can be fed from, beside each other.

    python benchmarks/feeding.py --gigabytes 2

Writes a store of random float16 rows, reads it in every way, cold (its pages dropped from the system's cache first,
where the system lets us) and warm, then draws live rows from the embedded model. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from concept_probe.activations import Activations, Live, prefetch
from concept_probe.activations.columns import COLUMNS
from concept_probe.activations.shard import map_shard
from concept_probe.activations.writer import StoreWriter
from concept_probe.types import Site

SITES = (Site("random", "in"), Site("random", "out"))
SHARD = 16384


def make(folder: Path, gigabytes: float, width: int) -> None:
    """Two aligned sites in shards of SHARD rows; the first takes about `gigabytes`."""
    header = {
        "subject": "random", "weight_hash": "", "sites": [str(s) for s in SITES], "dtype": "float16",
        "prompts": [["", None, None, 0]],
    }  # fmt: skip
    writer = StoreWriter.resume(folder, header, SITES, SHARD)
    rows = torch.randn(SHARD, width).half()
    for i in range(max(2, round(gigabytes * 1e9 / (SHARD * width * 2)))):
        columns = {c: torch.full((SHARD,), -1, dtype=torch.int32) for c in COLUMNS}
        columns["prompt"] = torch.arange(i * SHARD, (i + 1) * SHARD, dtype=torch.int32) // 77
        writer.add(SITES[1], rows[:, : width // 4], columns, done=0)
        writer.add(SITES[0], rows.roll(i, 0), columns, done=0)
    writer.end_batch(1, 1)


def drop(folder: Path) -> None:
    """Ask the system to forget the pages of the files."""
    for path in folder.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def sequential(acts: Activations, size: int) -> Iterator[Tensor]:
    shelf = acts._shelf(SITES[0])
    for first in range(0, shelf.rows - size + 1, size):
        yield shelf.read([(first, first + size)])


def rate(batches: Iterator[Tensor] | Iterator[tuple[Tensor, ...]], seconds: float, use: float = 0.0) -> float:
    """Rows per second over about `seconds`; `use` is what the user of a batch takes for it."""
    begin, rows = time.perf_counter(), 0
    for batch in batches:
        rows += len(batch[0]) if isinstance(batch, tuple) else len(batch)
        if use:
            time.sleep(use)
        if time.perf_counter() - begin > seconds:
            break
    return rows / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement, at most one epoch")
    parser.add_argument("--folder", type=Path, help="where the store is written and removed again")
    options = parser.parse_args()
    site, size, found = SITES[0], options.batch, {}
    ways: dict[str, Callable[[Activations], Iterator]] = {
        "sequential": lambda acts: sequential(acts, size),
        "window 65536": lambda acts: acts.batches(site, size, epochs=1),
        "window 16384": lambda acts: acts.batches(site, size, epochs=1, window=16384),
        "joint, window 65536": lambda acts: acts.joint(SITES, size, epochs=1),
        "every row from the whole store": lambda acts: acts.batches(site, size, epochs=1, window=None),
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        make(folder, options.gigabytes, options.width)
        begin = time.perf_counter()
        acts = Activations.open(folder)
        for record in acts._shards:
            acts._open(record)
        found["check of all shards, s"] = round(time.perf_counter() - begin, 2)
        print(f"check of all shards: {found['check of all shards, s']} s, {len(acts._shards)} shards")
        for name, way in ways.items():
            for state in ("cold", "warm"):
                if state == "cold":
                    acts._maps.clear()  # a page that is mapped is not dropped
                    if not hasattr(os, "posix_fadvise"):
                        continue
                    drop(folder)
                    checked, acts = acts, Activations.open(folder)
                    for record in checked._shards:  # opened, not checked: a check reads the whole file
                        acts._maps[record["file"]] = map_shard(folder / record["file"])
                else:
                    for _ in sequential(acts, size):  # until the system holds what it can
                        pass
                show(found, f"{name}, {state}", rate(way(acts), options.seconds))
        use = size / found["window 65536, warm"]
        alone = rate(acts.batches(site, size, epochs=1), options.seconds, use)
        ahead = rate(prefetch(acts.batches(site, size, epochs=1), ahead=16), options.seconds, use)
        show(found, "window 65536, a user who takes as long", alone)
        show(found, "the same, prefetched", ahead)
    live(found, size, options.seconds)
    print(json.dumps({"gigabytes": options.gigabytes, "width": options.width, "batch": size, **found}))


def live(found: dict[str, float], size: int, seconds: float) -> None:
    """The embedded model's text encoder; the first batch fills the buffer and is measured too."""
    from concept_probe.concepts.embedded import prompts
    from concept_probe.families import load

    subject = load("emoji")
    rows = Live(subject, prompts("emoji"), sites=subject.sites("text_stream")[:1])
    rows.rows(rows.sites[0])
    show(found, "live, text of emoji", rate(rows.batches(rows.sites[0], size), seconds))
    late = time.perf_counter()
    list(islice(rows.batches(rows.sites[0], size, start=100_000), 1))
    found["live, batch 100,000 after, s"] = round(time.perf_counter() - late, 2)
    print(f"live, batch number 100,000 after {found['live, batch 100,000 after, s']} s")


def show(found: dict[str, float], name: str, rows: float) -> None:
    found[name] = round(rows)
    print(f"{name:45} {rows:12,.0f} rows/s", flush=True)


if __name__ == "__main__":
    main()
