"""The command that a result is signed with: a verb and its own arguments, and nothing that names a person or a machine."""

from __future__ import annotations

import re
import shlex
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperCommand

_running: ContextVar[typer.Context | None] = ContextVar("running verb", default=None)


class Verb(TyperCommand):
    """A verb of the command line, which knows what it was given while it runs."""

    def invoke(self, ctx: Any) -> Any:
        before = _running.set(ctx)
        try:
            return super().invoke(ctx)
        finally:
            _running.reset(before)


def command() -> str:
    """The running verb with those of its arguments that were given, as a shell takes them.

    Nothing else of what the program was started with is told, and of an absolute path the last part alone.
    """
    context = _running.get()
    if context is None:
        return "concept-probe"
    words = ["concept-probe", context.info_name or ""]
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            words += _given(parameter, context.params[parameter.name or ""])
    return shlex.join(words)


def _given(parameter: Any, value: Any) -> list[str]:
    """One argument or option with its value, as words of a command."""
    if isinstance(value, bool):
        return [*(parameter.opts if value else parameter.secondary_opts)[:1]]
    named = [] if parameter.param_type_name == "argument" else [max(parameter.opts, key=len)]
    several = value if isinstance(value, list | tuple) else [value]
    return [word for one in several for word in (*named, without_folders(str(one)))]


def without_folders(text: str) -> str:
    r"""`text` with absolute paths, and addresses on the net, cut to their last part.

    >>> without_folders("clip:/home/anna/models/clip")
    'clip:clip'
    """
    return re.sub(r"(^|(?<=[\s:=,]))([A-Za-z]:)?[\\/](?:[^\\/]*[\\/])*(?=[^\\/])", "", text)
