"""Docstrings, signatures and options of the source, as griffe reads them, in Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe


def is_public(one: Any) -> bool:
    """Whether a file defines it, under a name for others, and says what it is."""
    return not one.is_alias and not one.is_module and not one.name.startswith("_") and one.docstring is not None


def entry(one: Any, exported: set[str]) -> str:
    mark = " { .exported }" if one.name in exported else ""
    if one.is_attribute:
        return f"### `{one.name}`{mark}\n\n{prose(one.docstring)}"
    if one.is_function:
        return f"### `{one.name}`{mark}\n\n{code(signature(one))}\n\n{prose(one.docstring)}"
    parts = [f"### `{one.name}`{mark}", prose(one.docstring)]
    options = [a for a in one.attributes.values() if not a.name.startswith("_") and a.docstring and a.annotation]
    if options:
        parts.append(option_table(options))
    for method in one.members.values():
        if method.is_function and not method.name.startswith("_") and method.docstring is not None:
            parts.append(f"#### `{one.name}.{method.name}`\n\n{code(signature(method))}\n\n{prose(method.docstring)}")
    return "\n\n".join(part for part in parts if part)


def option_table(options: list[griffe.Attribute]) -> str:
    rows = [
        f"| `{a.name}` | `{cell(str(a.annotation))}` | {'' if a.value is None else f'`{cell(str(a.value))}`'} "
        f"| {cell(text(a.docstring))} |"
        for a in options
    ]
    return "| field | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)


def signature(function: griffe.Function) -> str:
    shown = function.signature()
    if len(shown) <= 100:
        return shown
    inside, _, tail = shown.partition("(")[2].rpartition(")")
    return f"{function.name}(\n" + "".join(f"    {p},\n" for p in split(inside)) + f"){tail}"


def split(parameters: str) -> list[str]:
    """At commas outside brackets and quotes."""
    out, depth, quoted, start = [], 0, "", 0
    for i, c in enumerate(parameters):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "'\"":
            quoted = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            out.append(parameters[start:i].strip())
            start = i + 1
    return [*out, parameters[start:].strip()]


def first(docstring: griffe.Docstring | None) -> str:
    return cell(text(docstring).partition("\n\n")[0])


def text(docstring: griffe.Docstring | None) -> str:
    return "" if docstring is None else docstring.value.strip()


def prose(docstring: griffe.Docstring | None) -> str:
    return prose_of(text(docstring))


def prose_of(said: str) -> str:
    """A docstring as Markdown: what follows a prompt, and what is indented, is code."""
    out = []
    for part in re.split(r"\n\s*\n", said.strip()):
        if part.lstrip().startswith(">>>"):
            out.append(code(part.strip()))
        elif part.startswith("    "):
            out.append(f"```\n{part.rstrip()}\n```")
        else:
            out.append(re.sub(r"\n- ", "\n\n- ", part, count=1) if not part.startswith("- ") else part)
    return "\n\n".join(out)


def code(said: str) -> str:
    return f"```python\n{said}\n```"


def cell(said: str) -> str:
    """One line of a table."""
    return " ".join(said.split()).replace("|", "\\|")
