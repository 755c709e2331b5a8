"""What a capture will take, before it is started."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from concept_probe.activations.columns import COLUMNS
from concept_probe.activations.rows import TEXT_BATCH, CaptureOptions, RowCollector, check_names, chosen_sites
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.tokens import queries_of
from concept_probe.types import Prompt, Query, Sampling, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

SAMPLED = 4
"""Prompts of the timed batch where pictures are made; where only text is encoded, as many as a pass takes."""
COLUMN_BYTES = 4


@dataclass(frozen=True)
class CaptureEstimate:
    """What a capture is expected to take, from a batch of its prompts."""

    prompts: int
    """How many were asked for."""
    rows: Mapping[Site, int]
    """Per site, over all prompts."""
    bytes: int
    """On disk: rows in the stored dtype, and COLUMNS of 4 bytes each."""
    seconds: float
    """Running the subject; writing comes on top."""

    def __str__(self) -> str:
        return (
            f"{self.prompts:,} prompts: about {sum(self.rows.values()):,} rows at {len(self.rows)} site(s), "
            f"{self.bytes / 1e9:.2f} GB on disk, {self.seconds:.0f} s"
        )

    def check_room(self, folder: str | Path) -> None:
        """Raises OSError (ENOSPC) if the disk that `folder` is on, or would be on, has less free than is needed."""
        place = Path(folder).absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if self.bytes > free:
            raise OSError(
                errno.ENOSPC,
                f"this capture needs about {self.bytes / 1e9:.1f} GB and {place} has {free / 1e9:.1f} GB free; nothing "
                "was written; keep fewer token kinds (kinds=, --kind) or denoising steps (options.steps, --step), or store "
                "half the bytes (options.dtype, --dtype float16)",
            )


def estimate_capture(
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    *,
    roles: Sequence[str] = (),
    sites: Sequence[Site] = (),
    kinds: Sequence[str] | None = None,
    sampling: Sampling = SAMPLING,
    options: CaptureOptions = CaptureOptions(),
) -> CaptureEstimate:
    """Run a few prompts, evenly spread, and count and time what they give; options as for `capture`.

    >>> estimate_capture(subject, prompts, roles=["text_stream"]).check_room("acts")

    Rows and bytes are exact where every prompt gives as many rows. Raises as `capture` does.
    """
    queries = queries_of(prompts)
    if not queries:
        raise ValueError("no prompt was given to capture")
    wanted = chosen_sites(subject, roles, sites)
    check_names(kinds, options.branches)
    text_only = all(subject.is_text(site) for site in wanted)
    size = min(len(queries), TEXT_BATCH if text_only else min(SAMPLED, sampling.batch))
    numbers = [i * len(queries) // size for i in range(size)]
    part = [queries[i] for i in numbers]
    rows: dict[Site, int] = {}
    per_row: dict[Site, int] = {}

    def count(site: Site, x: Tensor, columns: Mapping[str, Tensor], start: int) -> None:
        rows[site] = rows.get(site, 0) + int((columns["prompt"] >= 0).sum())
        per_row[site] = x.shape[1] * x.element_size() + len(COLUMNS) * COLUMN_BYTES

    def run(asked: Sequence[Query]) -> float:
        rows.clear()
        here = RowCollector(subject, asked, kinds, options, count, lost="nothing was written", numbers=numbers)
        begin = time.perf_counter()
        for _ in here.run(wanted, sampling):
            pass
        return time.perf_counter() - begin

    if text_only:
        run(part[:1])  # the first pass of a process is slower than any other
    seconds = run(part) / size * len(queries)
    whole = {site: round(rows.get(site, 0) / size * len(queries)) for site in wanted}
    return CaptureEstimate(len(queries), whole, sum(n * per_row.get(site, 0) for site, n in whole.items()), seconds)
