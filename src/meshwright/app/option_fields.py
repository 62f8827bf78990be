"""The command line's options as JSON: read, checked and described from the same dataclasses (`meshwright.options`)."""

import ast
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from meshwright.errors import InputError

_UNIT = re.compile(r"_(deg|px|s)\Z")  # a flag is a field's name without its unit
_MOST_TEXT = 200  # characters of an option that is free text
_NOT_OF_JOBS = ("isolate",)  # a job has a process of its own


def option_name(field: str) -> str:
    """The name an option has on the command line and in JSON: ``texture_size_px`` is ``texture-size``."""
    return _UNIT.sub("", field).replace("_", "-")


def read_options(groups: Sequence[type], given: Mapping[str, object]) -> dict[type, Any]:
    """Make one object of each dataclass in ``groups`` from options by name; what is not given keeps its default.

    Options that are paths are not taken from JSON: a request must not name files of the server.

    Raises:
        InputError: an option is unknown, of the wrong type or out of its range; one sentence that names it.
    """
    known = {option_name(name): (group, name, kind) for group in groups for name, kind, _ in _fields(group)}
    values: dict[type, dict[str, Any]] = {group: {} for group in groups}
    for option, value in given.items():
        if option not in known:
            shown = option if re.fullmatch(r"[\w.-]{1,40}", option) else "so named"
            raise InputError(f"options: there is no option {shown}; known are {', '.join(sorted(known))}")
        group, name, kind = known[option]
        values[group][name] = _value(option, value, kind)
    made = {}
    for group in groups:
        try:
            made[group] = group(**values[group])
        except InputError as error:
            raise InputError(f"options: {in_options(str(error))}") from None
    return made


def options_schema(groups: Sequence[type]) -> dict[str, Any]:
    """The JSON schema of the object that `read_options` reads."""
    properties = {}
    for group in groups:
        meanings = _meanings(group)
        for name, kind, default in _fields(group):
            schema = {**_schema(kind), "description": meanings.get(name, "")}
            if default is not None:
                schema["default"] = list(default) if isinstance(default, tuple) else default
            properties[option_name(name)] = schema
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _fields(group: type) -> Iterator[tuple[str, Any, Any]]:
    """(name, type, default) of the fields that JSON may set."""
    hints = get_type_hints(group)
    for field in fields(group):
        if Path not in (hints[field.name], *get_args(hints[field.name])) and field.name not in _NOT_OF_JOBS:
            yield field.name, hints[field.name], None if field.default is MISSING else field.default


def _value(option: str, value: object, kind: Any) -> Any:
    """``value`` as the type ``kind``, a plain type, a Literal, a tuple of one type, or a union of those with None."""
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not NoneType]
        if value is None and NoneType in get_args(kind):
            return None
        return _value(option, value, members[0])
    if get_origin(kind) is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            raise InputError(f"options: {option} must be one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list) or len(parts) > 16:
            raise InputError(f"options: {option} must be a list of at most 16")
        return tuple(_value(option, part, get_args(kind)[0]) for part in parts)
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"options: {option} must be true or false")
        return value
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
            raise InputError(f"options: {option} must be a whole number")
        return value
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise InputError(f"options: {option} must be a number")
        return float(value)
    if kind is str:
        if not isinstance(value, str) or len(value) > _MOST_TEXT or not value.isprintable():
            raise InputError(f"options: {option} must be a text of at most {_MOST_TEXT} characters")
        return value
    raise AssertionError(f"no JSON form for {kind}")


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _schema(kind: Any) -> dict[str, Any]:
    if get_origin(kind) in (Union, UnionType):
        (member,) = (member for member in get_args(kind) if member is not NoneType)
        inner = _schema(member)
        return {**inner, "type": [inner["type"], "null"]} if NoneType in get_args(kind) else inner
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(get_args(kind))}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _schema(get_args(kind)[0])}
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[kind]}


def in_options(message: str) -> str:
    """A message of the library, whose arguments stand in backticks (see `InputError`), in names of options."""
    return re.sub(
        r"`(\w+)(?:=([^`]*))?`", lambda found: " ".join(filter(None, (option_name(found[1]), found[2]))), message
    )


def _meanings(group: type) -> dict[str, str]:
    """The text below each field of a dataclass."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(group))).body[0]
    except (OSError, SyntaxError):  # no source beside the compiled code
        return {}
    assert isinstance(body, ast.ClassDef)
    meanings = {}
    for field, below in itertools.pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            meanings[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return meanings
