"""What a thing is, whatever it is called: one digest over everything in it that can decide a number.

>>> digest_of(Sampling(steps=4)) == digest_of(Sampling(steps=4))
True

Names of rows, fits and measurements are made of it. Tensors count by their bytes, modules by their class and tensors,
dataclasses by their fields, and code that stands outside of installed packages by its text. What says its own content
by a method `digest()` is believed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor, nn

from concept_probe.storage import file_sha256, tensors_sha256, text_sha256

EMPTY: tuple[Any, ...] = (None, False, 0, "", ())
"""A field that is at its default, and that one of these, is left out: so a class may gain an option that is off, and
everything else keeps its digest. Any other default is written out, so that another default is another digest."""
NO_CONTENT = frozenset({*vars(nn.Module()), "made_by"})
"""Attributes of a module that decide no number besides its tensors: torch's own, and where it is from."""
OPAQUE = (types.ModuleType, torch.device, torch.dtype, torch.Generator)
"""Counted by what they print as, or not at all."""


def digest_of(*values: Any) -> str:
    """Hex sha256 over the content of `values`, in their order."""
    return text_sha256(json.dumps(content_of(values), sort_keys=True))


def content_of(value: Any) -> Any:
    """The same as values that JSON can hold."""
    return _content(value, ())


def _content(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", text_sha256(value.hex())]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Tensor):
        return ["tensor", tensors_sha256([("", value)])]
    if isinstance(value, Mapping):
        return {str(_key(k)): _content(v, above) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_content(v, above) for v in value]
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(json.dumps(_content(v, above), sort_keys=True) for v in value)]
    return _of_object(value, above)


def _of_object(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, type):
        return [_name(value), _code(value)]
    digest = getattr(value, "digest", None)
    if inspect.ismethod(digest) and not any(
        p.default is p.empty for p in inspect.signature(digest).parameters.values()
    ):
        return [_name(type(value)), str(digest())]
    if callable(getattr(value, "weight_hash", None)):  # a subject
        return [_name(type(value)), value.weight_hash()]
    if isinstance(value, functools.partial):
        return ["partial", *(_content(x, above) for x in (value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return ["method", value.__name__, _content(value.__self__, above)]
    if isinstance(value, types.FunctionType):
        return _of_function(value, above)
    if isinstance(value, nn.Module):
        left_out = NO_CONTENT | _cached(type(value))
        own = {k: _content(v, above) for k, v in vars(value).items() if k not in left_out}
        tensors = {**value.state_dict(), **dict(value.named_buffers())}  # some buffers are not saved
        return [_name(type(value)), _code(type(value)), own, tensors_sha256(sorted(tensors.items()))]
    if callable(getattr(value, "get_vocab", None)):
        return [_name(type(value)), tokenizer_content(value)]
    if dataclasses.is_dataclass(value):
        return [_name(type(value)), _code(type(value)), _fields(value, above)]
    if isinstance(value, OPAQUE):
        return "" if isinstance(value, torch.Generator) else str(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # an array of numpy
        return ["array", str(value.dtype), _content(value.tolist(), above)]
    slots = (k for kind in type(value).__mro__ for k in _slots(kind))
    held = {k: getattr(value, k) for k in slots if hasattr(value, k)} | getattr(value, "__dict__", {})
    lazy = _cached(type(value))
    return [_name(type(value)), _code(type(value)), {k: _content(v, above) for k, v in held.items() if k not in lazy}]


def _cached(kind: type) -> set[str]:
    """Attributes that are worked out from the others when they are asked for."""
    return {k for base in kind.__mro__ for k, v in vars(base).items() if isinstance(v, functools.cached_property)}


def _slots(kind: type) -> Sequence[str]:
    names = vars(kind).get("__slots__", ())
    return [n for n in ([names] if isinstance(names, str) else names) if n not in ("__dict__", "__weakref__")]


def _fields(value: Any, above: tuple[int, ...]) -> dict[str, Any]:
    out = {}
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if not is_left_out(field, held):
            out[field.name] = _content(held, above)
    return out


def is_left_out(field: dataclasses.Field[Any], held: Any) -> bool:
    """Whether a field of a dataclass that holds `held` is at its default, and that says nothing (`EMPTY`)."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if isinstance(default, Mapping):
        return not default and isinstance(held, Mapping) and not held
    return any(_same(default, nothing) and _same(held, nothing) for nothing in EMPTY)


def _same(value: Any, nothing: Any) -> bool:
    return (
        type(value) in (type(nothing), *((float,) if nothing == 0 and nothing is not False else ()))
        and value == nothing
    )


def _of_function(function: types.FunctionType, above: tuple[int, ...]) -> Any:
    cells = [c.cell_contents for c in function.__closure__ or ()]
    return [_name(function), _code(function), [_content(x, above) for x in (*cells, *(function.__defaults__ or ()))]]


def _name(thing: Any) -> str:
    module = getattr(thing, "__module__", "") or ""
    return thing.__qualname__ if module.startswith("concept_probe") else f"{module}.{thing.__qualname__}"


@functools.cache
def _code(thing: Any) -> str:
    """Hash of the file that a class or function stands in; none for installed packages, which have versions."""
    try:
        file = inspect.getsourcefile(thing)
    except TypeError:  # built in
        return ""
    if file is None or not Path(file).is_file() or "site-packages" in file or "dist-packages" in file:
        return ""
    if (getattr(thing, "__module__", "") or "").startswith(("concept_probe.", "torch.")) or Path(file).is_relative_to(
        LIB
    ):
        return ""
    return file_sha256(Path(file))


LIB = Path(json.__file__).parents[1]
"""Where Python's own modules are."""


def tokenizer_content(tokenizer: Any) -> dict[str, Any]:
    """What decides how a tokenizer reads: its words, rules, marks and template; not how it last padded."""
    rules: Any = {}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("truncation", "padding", "version")}
    return {
        "words": text_sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True)),
        "rules": text_sha256(json.dumps(rules, sort_keys=True)),
        "marks": {k: str(v) for k, v in getattr(tokenizer, "special_tokens_map", {}).items()},
        "length": getattr(tokenizer, "model_max_length", None),
        "template": getattr(tokenizer, "chat_template", None),
    }


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _key(key: Any) -> Any:
    return key if _is_plain(key) else json.dumps(content_of(key), sort_keys=True)
