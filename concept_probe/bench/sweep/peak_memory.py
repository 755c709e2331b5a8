"""How much memory a stretch of work took at its peak."""

from __future__ import annotations

import re
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Begins to watch when it is made. On a GPU it is torch's own count, else what Linux says of the process."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.start: int | None = torch.cuda.memory_allocated()
        else:
            self.start = _field("VmRSS") if _forget() else None

    def above(self) -> int | None:
        """Bytes at the peak above what was in use at the start; None where the system does not say."""
        if self.start is None:
            return None
        peak = torch.cuda.max_memory_allocated() if self.cuda else _field("VmHWM")
        return None if peak is None else max(0, peak - self.start)


def _forget() -> bool:
    """Set the process's peak to what it uses now; False where that can't be done."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _field(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None
