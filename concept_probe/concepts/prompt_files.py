"""Lists of prompts in files: one a line, or the tables in which benchmarks of erasure are published.

| ending | what is read |
|---|---|
| `.csv`, `.tsv` | one row a prompt, by the names in the first line; commas within quotes belong to the prompt |
| `.jsonl`, `.ndjson`, `.json` | one object a prompt, by its keys; or texts |
| any other | one prompt a line |

Columns with a meaning: `prompt`; its own seed (`evaluation_seed`, `seed`, `sd_seed`); its own guidance
(`evaluation_guidance`, `guidance`, `guidance_scale`, `sd_guidance_scale`); what it shows (`label`, `class`, `artist`).
A prompt that stands there with several seeds is asked with each of them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from concept_probe.storage import CorruptFile, MissingFile, WrongFile, parse_json, read_text
from concept_probe.types import Prompt, Query, Sampling

SEEDS = ("evaluation_seed", "seed", "sd_seed")
GUIDANCE = ("evaluation_guidance", "guidance", "guidance_scale", "sd_guidance_scale")
LABELS = ("label", "class", "artist")
NUMBERING = ("", "case_number", "unnamed:_0", "index", "id")
"""Columns that number the rows, and say nothing of a prompt."""
LARGEST_SEED = 2**63 - 1
_READ = ("prompt", *SEEDS, *GUIDANCE, *LABELS)
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t,;"}
_MEND = "give a text file with one prompt a line, or a .csv, .tsv or .jsonl with a column `prompt`"
_AGAIN = "mend that row, or get the file again"


@dataclass(frozen=True)
class PromptList:
    """What a file of prompts asks for, in its order."""

    queries: tuple[Query, ...]
    """Every prompt with its own seed; 0 where the file has none."""
    guidance: tuple[float, ...] = ()
    """The guidance that the file names for each of `queries`; empty where it names none."""
    path: str = ""

    @classmethod
    def of(cls, prompts: Sequence[Prompt]) -> PromptList:
        """Prompts that no file says more of."""
        return cls(tuple(map(Query, prompts)))

    def chosen(self, numbers: Sequence[int]) -> PromptList:
        """Those of these numbers."""
        guidance = tuple(self.guidance[i] for i in numbers) if self.guidance else ()
        return replace(self, queries=tuple(self.queries[i] for i in numbers), guidance=guidance)

    def sampling(self, sampling: Sampling) -> Sampling:
        """`sampling` with the file's guidance. ValueError where its prompts ask for different ones."""
        named = sorted(set(self.guidance))
        if len(named) > 1:
            raise ValueError(
                f"{self.path} asks for guidance {', '.join(f'{g:g}' for g in named)}, and a run has one for all its "
                "prompts; give one file for each guidance"
            )
        return replace(sampling, guidance=named[0]) if named else sampling


def read_prompts(path: str | Path) -> PromptList:
    """The prompts in a file, as its ending says.

    >>> read_prompts("vangogh.csv").queries[0].seed
    2219

    Warns of columns that are not read. MissingFile; CorruptFile for what is no UTF-8, was cut off or has no prompt in it,
    and for a seed or guidance that is none, naming its line; WrongFile for a table without a column `prompt`, naming
    its columns, and for a table that is called as a text.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"prompt file {path} {'is a folder' if path.is_dir() else 'not found'}; {_MEND}")
    text = read_text(path, _MEND)
    if "\0" in text:
        raise CorruptFile(path, "not text in UTF-8 (it holds zero bytes)", _MEND)
    ending = path.suffix.lower()
    if ending in _DELIMITERS:
        found = _queries(path, list(_rows_of_csv(path, text, _DELIMITERS[ending])))
    elif ending in (".jsonl", ".ndjson", ".json"):
        found = _queries(path, list(_rows_of_json(path, text, whole=ending == ".json")))
    else:
        _refuse_table(path, text)
        found = PromptList(tuple(Query(Prompt(line.strip())) for line in text.splitlines() if line.strip()))
    if not found.queries:
        raise CorruptFile(path, "no prompt in it", _MEND)
    return replace(found, path=str(path))


def _rows_of_csv(path: Path, text: str, delimiters: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and fields of every row that is not empty, by the names in the first one."""
    delimiter = next((d for d in delimiters if "prompt" in _names(text, d)), delimiters[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if not names:
                names = [_name(field) for field in fields]
                _check_columns(path, names)
            elif len(fields) != len(names):
                raise CorruptFile(
                    path,
                    f"line {reader.line_num} has {len(fields)} fields, and the first line names {len(names)} columns "
                    f"({', '.join(names)})",
                    f"put quotes around a prompt with a {'tab' if delimiter == chr(9) else repr(delimiter)} in it, {_AGAIN}",
                )
            else:
                yield reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise CorruptFile(path, f"line {reader.line_num} is no whole row ({error})", _AGAIN) from None


def _names(text: str, delimiter: str) -> list[str]:
    """The first line that is not empty as names of columns; none where it is no row."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    try:
        return [_name(field) for field in next(csv.reader([first], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _name(field: str) -> str:
    return "_".join(field.strip().lower().split())


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if "prompt" not in names:
        raise WrongFile(
            path,
            f"no column `prompt` among {', '.join(name or 'one without a name' for name in names)}",
            "call the one with the prompts so in the first line, or, where there is one prompt a line and no such "
            "line, let the file end in .txt",
        )
    twice = sorted({name for name in names if name in _READ and names.count(name) > 1})
    if twice:
        raise WrongFile(path, f"two columns are called {twice[0]}", "keep the one that is meant")


def _rows_of_json(path: Path, text: str, *, whole: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and fields of every object; a bare text is a prompt."""
    if whole and text.lstrip().startswith("["):
        rows = enumerate(parse_json(text, path, _MEND), 1)
    else:
        lines = ((i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip())
        rows = ((i, parse_json(line, f"{path}, line {i}", _AGAIN)) for i, line in lines)
    for number, row in rows:
        if isinstance(row, str):
            row = {"prompt": row}
        if not isinstance(row, Mapping):
            raise CorruptFile(path, f"line {number} is a JSON {type(row).__name__}, not an object", _MEND)
        named = [_name(key) for key in row]
        _check_columns(path, named)
        yield number, dict(zip(named, row.values(), strict=True))


def _queries(path: Path, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> PromptList:
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    unread = [name for name in names if name not in (*_READ, *NUMBERING)]
    if unread:
        warnings.warn(f"{path}: columns that are not read: {', '.join(unread)}", stacklevel=3)
    queries, guidance = [], []
    for line, row in rows:
        text = row["prompt"]
        if not isinstance(text, str) or not text.strip():
            raise CorruptFile(path, f"line {line} has no prompt", _AGAIN)
        label = next((str(row[name]).strip() for name in LABELS if row.get(name) not in (None, "")), None)
        seed = _number(path, line, row, [name for name in SEEDS if name in names])
        if seed is not None and not (seed.is_integer() if isinstance(seed, float) else 0 <= seed <= LARGEST_SEED):
            raise CorruptFile(path, f"line {line}: seed {seed} is no whole number from 0 to {LARGEST_SEED}", _AGAIN)
        queries.append(Query(Prompt(text.strip(), label=label), int(seed or 0)))
        own = _number(path, line, row, [name for name in GUIDANCE if name in names])
        guidance += [] if own is None else [float(own)]
    return PromptList(tuple(queries), tuple(guidance))


def _number(path: Path, line: int, row: Mapping[str, Any], names: Sequence[str]) -> float | int | None:
    """What a row says under names that mean one thing; None where the file has none of them."""
    said = {name: row.get(name) for name in names}
    found = {}
    for name, value in said.items():
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            try:
                number = int(value) if isinstance(value, str | int) else value
            except ValueError:
                number = float(value)
            if not math.isfinite(number):
                raise ValueError
        except ValueError:
            told = "no" if value in (None, "") else f"{str(value)[:40]!r} as"
            raise CorruptFile(path, f"line {line} has {told} {name}, which is a number", _AGAIN) from None
        found[name] = int(number) if isinstance(number, float) and number.is_integer() else number
    if len(set(found.values())) > 1:
        told = " and ".join(f"{name} {number}" for name, number in found.items())
        raise CorruptFile(path, f"line {line} has {told}, which mean one thing", "keep the column that is meant")
    return next(iter(found.values()), None)


def _refuse_table(path: Path, text: str) -> None:
    """WrongFile for a table that is called as a text: its rows would be taken for prompts."""
    first = next((line for line in text.splitlines() if line.strip()), "").strip()
    known = {"prompt", *SEEDS, *GUIDANCE, *LABELS, *NUMBERING[1:]}
    for delimiter, ending in ((",", ".csv"), ("\t", ".tsv"), (";", ".csv")):
        names = _names(text, delimiter)
        if "prompt" in names or (len(names) > 1 and len(known & {*names}) > 1):
            raise WrongFile(
                path,
                f"its first line names columns ({', '.join(name or 'one without a name' for name in names)}), so its lines "
                "are rows and not prompts",
                f"call it {path.with_suffix(ending).name}",
            )
    for ending, part in ((".json", text), (".jsonl", first)):
        try:
            rows = json.loads(part) if part.lstrip().startswith(("{", "[")) else None
        except (ValueError, RecursionError):
            continue
        if isinstance(rows, dict) or (rows and isinstance(rows, list) and isinstance(rows[0], dict | str)):
            raise WrongFile(path, "it is JSON, not one prompt a line", f"call it {path.with_suffix(ending).name}")
