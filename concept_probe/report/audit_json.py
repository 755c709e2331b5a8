"""A report as JSON, exactly: `from_json(to_json(report)) == report`, pictures and all."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from concept_probe.storage import SEAL, CorruptFile, WrongFile, check_seal, parse_json, seal_of
from concept_probe.types import Report

SCHEMA = "concept_probe.report/2"
REPORT_WITHOUT_SEAL = "concept_probe.report/1"
"""The schema before: it is read where every field is as it has to be."""
_MEND = "give the report.json that audit wrote"


def to_json(report: Report) -> str:
    """`report` as JSON text: keys in the order of the fields, pictures as base64, NaN and infinities as strings."""
    data = {"schema": SCHEMA, **encoded_value(report)}
    return json.dumps({**data, SEAL: seal_of(data)}, ensure_ascii=False, indent=1, allow_nan=False)


def from_json(text: str, where: str | Path = "this") -> Report:
    """The report that `to_json` wrote. `where` is what errors call the text.

    Raises WrongFile for what is not a report, or one of another version, CorruptFile for one that was cut or altered,
    with the place where it can be told.
    """
    data = parse_json(text, f"{where} is not JSON", _MEND)
    if not isinstance(data, dict) or data.get("schema") not in (SCHEMA, REPORT_WITHOUT_SEAL):
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise WrongFile(where, f"it is not a report: its schema is {found!r}, not {SCHEMA!r}", _MEND)
    whole = data["schema"] == SCHEMA
    try:
        report = decoded_value(
            Report, {name: one for name, one in data.items() if name not in ("schema", SEAL)}, "report"
        )
    except ValueError as error:
        raise CorruptFile(where, str(error), _MEND) from None
    check_seal(where, data, _MEND, needed=whole)
    return report


def encoded_value(value: Any) -> Any:
    """A result of `types` as values that JSON can hold: its fields by name, but for those that stand beside it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: encoded_value(getattr(value, f.name)) for f in dataclasses.fields(value) if not _stands_beside(f)
        }
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(k): encoded_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encoded_value(v) for v in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    number = float(cast(Any, value))
    return number if math.isfinite(number) else str(number)


def decoded_value(kind: Any, value: Any, where: str) -> Any:
    """What `encoded_value` was given, of type `kind`. ValueError, with the place `where`, for what it can't have been."""
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_fields(kind, value, where)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return decoded_value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        _expect(isinstance(value, list), where, "a list", value)
        return tuple(decoded_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and _is_class_below(origin, Mapping):
        _expect(isinstance(value, dict), where, "an object", value)
        return {k: decoded_value(arguments[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    if origin is Literal:
        _expect(value in arguments, where, f"one of {', '.join(map(repr, arguments))}", value)
        return value
    if kind is bytes:
        _expect(isinstance(value, str), where, "base64 text", value)
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise ValueError(f"{where} is not base64 text") from None
    if kind is float:
        named = isinstance(value, str) and value in ("nan", "inf", "-inf")
        small = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        _expect(named or small, where, "a number", value)
        return float(value)
    plain = cast(type, kind)
    _expect(isinstance(value, plain) and not (plain is int and isinstance(value, bool)), where, plain.__name__, value)
    return value


def _decode_fields(kind: type, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), where, "an object", value)
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if not _stands_beside(f)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise ValueError(f"{where} has fields that no report has: {', '.join(unknown)}")
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(value))
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return kind(**{name: decoded_value(hints[name], v, f"{where}.{name}") for name, v in value.items()})


def _stands_beside(of: dataclasses.Field[Any]) -> bool:
    return bool(of.metadata.get("beside"))


def _is_class_below(origin: Any, of: type) -> bool:
    """Whether `origin` is a class below `of`; False for what is no class."""
    return isinstance(origin, type) and issubclass(origin, of)


def _expect(holds: bool, where: str, wanted: str, found: Any) -> None:
    if not holds:
        raise ValueError(f"{where} should be {wanted}, not {str(found)[:60]!r}")
