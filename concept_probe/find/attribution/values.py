"""Values of coalitions on disk: what was measured once is not measured again, whenever the work is interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from concept_probe.storage import (
    append_line,
    check_fields,
    check_seal,
    holds_whole_object,
    parse_json,
    sealed,
    without_mark,
)
from concept_probe.storage.schema import Fields, Items, Number, Text

_LINE = Fields({"game": Text(), "keep": Text(), "values": Items(Number(any=True)), "seal": Text()})
_MEND = "delete the line, and its coalition is measured again"


class KeptValues:
    """Values by game and coalition, in memory and, where a folder is given, in a file of sealed lines in it."""

    def __init__(self, folder: str | Path | None) -> None:
        """Reads what is there; a last line that was cut short is left out. CorruptFile, with its number, for any other."""
        self.path = None if folder is None else Path(folder) / "values.jsonl"
        self._held: dict[tuple[str, str], Tensor] = {}
        if self.path is not None and self.path.is_file():
            lines = [without_mark(line) for line in self.path.read_bytes().split(b"\n")]
            if not holds_whole_object(lines[-1]):
                lines.pop()
            for number, line in enumerate(lines, 1):
                if line:
                    self._read(line, f"{self.path}, line {number}")

    def _read(self, line: bytes, where: str) -> None:
        value = parse_json(line, where, _MEND)
        check_fields(where, value, _LINE, _MEND, "the line")
        check_seal(where, value, _MEND)
        self._held[value["game"], value["keep"]] = torch.tensor(value["values"], dtype=torch.float64)

    def get(self, game: str, keep: Tensor, *, slopes: bool = False) -> Tensor | None:
        return self._held.get((game, key_of(keep, slopes=slopes)))

    def put(self, game: str, keep: Tensor, values: Tensor, *, slopes: bool = False) -> None:
        """Keep the values (n,) float64 of a coalition, or its slopes in a row, first on disk."""
        key = key_of(keep, slopes=slopes)
        if self.path is not None:
            line = sealed({"game": game, "keep": key, "values": values.tolist()})
            append_line(self.path, json.dumps(line), ours=holds_whole_object, begins=b'{"game": ')
        self._held[game, key] = values


def key_of(keep: Tensor, *, slopes: bool = False) -> str:
    """A coalition as a text: a digit for each player where all are in or out, else the shares."""
    shares: list[float] = keep.tolist()
    whole = all(k in (0.0, 1.0) for k in shares)
    text = "".join("1" if k else "0" for k in shares) if whole else ",".join(map(repr, shares))
    return f"slopes at {text}" if slopes else text
