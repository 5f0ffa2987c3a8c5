"""The protocols by name: each is a module of this room with `run(context, **options) -> Result`.

The options of a protocol are the keyword-only arguments of its `run`; the command line makes its flags from them, with
the sentences of the docstring as help. Nothing is imported until a protocol is asked for. A module may name the text
that its records must carry, `TEXT = "report_else_statements"`; without it, records without any are judged too.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import Result

PROTOCOLS: Mapping[str, str] = types.MappingProxyType(
    {
        "zero_shot": "classes described in words",
        "linear_probe": "a linear model on frozen embeddings, 1 %, 10 %, 100 % of the labels",
        "fine_tune": "the whole ECG encoder with a linear head, 1 %, 10 %, 100 % of the labels",
        "identification": "whose ECG is it",
        "retrieval": "the report of an ECG, and the ECG of a report",
        "captioning": "written reports against true ones",
        "robustness": "fewer leads, noise, other rates, shorter records",
    }
)


@dataclass(frozen=True)
class Option:
    """One option of a protocol: a keyword-only argument of its `run`.

    Attributes:
        name: as in the signature.
        kind: the type of one value: `str`, `int`, `float` or `bool`.
        default: as in the signature.
        is_list: whether several values may be given.
        help: what the docstring says of it.
    """

    name: str
    kind: type
    default: Any
    is_list: bool
    help: str


def find_protocol(name: str) -> Callable[..., Result]:
    """The `run` of a protocol. Raises ValueError for a name that is none."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {name!r}.")
    return importlib.import_module(f"modeling_esi.evaluation.{name}").run


def options_of(run: Callable[..., Result]) -> list[Option]:
    """The options of a protocol, in the order of its signature."""
    parameters = [p for p in inspect.signature(run).parameters.values() if p.kind is p.KEYWORD_ONLY]
    # the context's type is known to type checkers alone: only the options' types are looked up
    typed = type("Options", (), {"__annotations__": {p.name: p.annotation for p in parameters}})
    hints = typing.get_type_hints(typed, globalns=run.__globals__)
    said = _said_of_arguments(inspect.getdoc(run) or "")
    return [_option(parameter, hints[parameter.name], said.get(parameter.name, "")) for parameter in parameters]


def add_flags(parser: argparse.ArgumentParser, options: list[Option]) -> None:
    """A flag for each option: `--labels_only` and `--no-labels_only` for a bool, several words for a list."""
    for option in options:
        help_text = option.help.replace("%", "%%")
        if option.kind is bool:
            parser.add_argument(
                f"--{option.name}", action=argparse.BooleanOptionalAction, default=option.default, help=help_text
            )
        else:
            parser.add_argument(
                f"--{option.name}",
                type=option.kind,
                nargs="+" if option.is_list else None,
                default=option.default,
                help=help_text,
            )


def _option(parameter: inspect.Parameter, hint: Any, said: str) -> Option:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    arguments = [part for part in typing.get_args(hint) if part is not Ellipsis]
    kind = arguments[0] if arguments else hint
    if kind not in (str, int, float, bool):
        raise TypeError(f"{parameter.name}: expected an option of str, int, float, bool or several, got {hint}.")
    default = None if parameter.default is parameter.empty else parameter.default
    return Option(parameter.name, kind, default, bool(arguments), said)


def _said_of_arguments(doc: str) -> dict[str, str]:
    """What the section `Args:` of a docstring says of each argument, as one line."""
    section = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    if section is None:
        return {}
    parts = re.split(r"^    (\w+): ", section[1], flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}
