"""Write 200 MB of rows to a store and read them in batches; print what was written and the most memory it took.

Run by test_store.py: `python memory_run.py FOLDER`. Ends with one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from concept_probe.activations import Activations
from concept_probe.activations.columns import COLUMNS
from concept_probe.activations.writer import StoreWriter
from concept_probe.types import Site


def anonymous_memory() -> int:
    """MB that this process holds for itself; pages mapped from files are the system's cache and not counted."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssAnon"))
    return int(line.split()[1]) // 1024


def main(folder: Path) -> None:
    site = Site("c", "p")
    header = {
        "subject": "s",
        "weight_hash": "",
        "sites": [str(site)],
        "dtype": "float32",
        "prompts": [["x", None, None, 0]],
    }
    writer = StoreWriter.resume(folder, header, (site,), shard_rows=4096)
    columns = {c: torch.zeros(2048, dtype=torch.int32) for c in COLUMNS}
    before, held = anonymous_memory(), []
    for _ in range(25):
        writer.add(site, torch.randn(2048, 1024), columns, done=0)
        held.append(anonymous_memory())
    writer.end_batch(1, 1)
    acts = Activations.open(folder)
    for _ in acts.batches(site, 512, epochs=1, window=8192):
        held.append(anonymous_memory())
    print(json.dumps({"bytes": acts.rows(site) * acts.width(site) * 4, "most_mb": max(held) - before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
