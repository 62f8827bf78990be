"""Options as flags: the dataclasses of `meshwright.options` to and from words of the command line, by tyro."""

import ast
import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import itertools
import operator
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import DisallowNone, FlagCreatePairsOff, OmitArgPrefixes, arg, subcommand
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from meshwright.errors import InputError

Command = Callable[[], None]

_MARKER_OF_SWITCHES = get_args(FlagCreatePairsOff[bool])[1:]  # --flag
_MARKER_OF_PAIRS = get_args(DisallowNone[bool])[1:]  # --flag and --no-flag; None if neither is given
_ALSO = {"--keep-cameras": "--no-refine-cameras"}  # plainer than the name that tyro makes


def flag(name: str) -> str:
    """The flag of an option: its field's name without the unit."""
    return "--" + re.sub(r"_(deg|px|s)$", "", name).replace("_", "-")


def in_flags(message: str) -> str:
    """A message of the library as the command line says it: options in backticks become flags (see `InputError`)."""

    def spelt(found: re.Match[str]) -> str:
        value = found[2]
        return flag(found[1]) if value is None else f"{flag(found[1])} {value.strip(chr(39))}"

    return re.sub(r"`(\w+)(?:=([^`]*))?`", spelt, message)


def parse(commands: Mapping[str, Callable[..., Command]], words: Sequence[str]) -> Command:
    """The command that the words name, with its options; without words the help is shown.

    Raises:
        InputError: the words make no sense; one line that says which, and where help is.
        SystemExit: help or shell completion was asked for and has been printed.
    """
    words = [_ALSO.get(word, word) for word in words] or ["--help"]
    if not words[0].startswith("-") and words[0] not in commands:
        near = difflib.get_close_matches(words[0], commands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(commands)}"
        raise InputError(f"{words[0]}: there is no such command; {hint}")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command: Command = tyro.cli(
                _one_of(commands, words[0]),
                prog="meshwright",
                description="Turn pictures of one object into a textured 3D mesh. --version: which meshwright this is.",
                args=words,
                config=(OmitArgPrefixes,),
                registry=_registry(),
            )
    except _Refused as refused:
        raise refused.error from None
    except SystemExit as stop:
        if stop.code:
            raise InputError(one_line(complaint.getvalue())) from None
        raise
    return command


def _one_of(commands: Mapping[str, Callable[..., Command]], asked: str) -> Any:
    """All commands: the one that is asked for with all of its text, others with their first paragraph, for the list."""
    texts = {name: inspect.getdoc(cls) or "" for name, cls in commands.items()}
    named = (
        Annotated[cls, subcommand(name, description=texts[name] if name == asked else texts[name].split("\n\n")[0])]
        for name, cls in commands.items()
    )
    return functools.reduce(operator.or_, named)


class _Refused(Exception):
    """Carries an `InputError`, which is a ValueError, past tyro, which would draw a box around it."""

    def __init__(self, error: InputError) -> None:
        self.error = error


def _registry() -> ConstructorRegistry:
    registry = ConstructorRegistry()
    registry.struct_rule(_options_rule)
    registry.primitive_rule(_comma_rule)
    return registry


def _options_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Fields of a dataclass, with our names of flags, and no default shown where the text says what None means."""
    if not (dataclasses.is_dataclass(info.type) and info.type.__module__.startswith("meshwright.")):
        return None  # tyro's own
    cls, texts = info.type, _field_texts(info.type)
    hints = get_type_hints(cls, include_extras=True)
    fields = []
    for field in dataclasses.fields(cls):
        default = getattr(info.default, field.name, field.default)
        if default is dataclasses.MISSING:
            default = MISSING_NONPROP
        kind = _annotated(field.name, hints[field.name])
        fields.append(StructFieldSpec(field.name, kind, default, texts.get(field.name)))

    def make(**values: object) -> object:
        try:
            return cls(**values)
        except InputError as error:
            raise _Refused(error) from None

    return StructConstructorSpec(make, tuple(fields))


def _field_texts(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(tree, ast.ClassDef)
            for field, text in itertools.pairwise(tree.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    texts[ast.unparse(field.target)] = str(text.value.value)
    return texts


def _annotated(name: str, kind: Any) -> Any:
    """The type of a field with what tyro should know of it; what its own annotation says goes before."""
    plain, *own = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    words: dict[str, Any] = {"name": flag(name).removeprefix("--")}
    markers: tuple[Any, ...] = ()
    if plain is bool:
        markers = _MARKER_OF_SWITCHES
    elif type(None) in get_args(plain):  # the text says what None means: no "{None}|FLOAT (default: None)"
        words["help_behavior_hint"] = ""
        (first, *_) = (part for part in get_args(plain) if part is not type(None))
        if first is bool:
            markers = _MARKER_OF_PAIRS
        else:
            words["metavar"] = first.__name__.upper()
    return Annotated[(plain, *markers, arg(**words), *own)]


def _comma_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[tuple[str, ...]] | None:
    """Tuples of words as one word with commas: ``glb,obj``. Repeats are dropped."""
    word, *rest = get_args(info.type) if info.type_origin is tuple else (None,)
    if rest != [Ellipsis] or not (word is str or get_origin(word) is Literal):
        return None  # paths come one by one, ranges as two numbers
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,...",
        instance_from_str=lambda words: tuple(dict.fromkeys(part for part in words[0].lower().split(",") if part)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value)],
    )


def one_line(box: str) -> str:
    """What tyro says in a box, without its frame and its asides, and where help is."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()]
    title, *rest = [line for line in lines if line]
    text = re.sub(r"\s+", " ", " ".join(rest)) or title
    help_of = re.search(r"meshwright(?: [\w-]+)? --help", text)
    text = re.sub(r" \(applied to [^)]*\)", "", text)
    text = re.split(r" (?:Argument helptext:|Arguments are applied|Perhaps you meant|For full helptext)", text)[0]
    return f"{text.rstrip('.')}; see {help_of[0] if help_of else 'meshwright --help'}"
