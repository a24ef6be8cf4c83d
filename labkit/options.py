"""Command lines made of dataclasses: each field an option, a YAML file beneath them, errors in one line."""

import argparse
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from labkit import checks
from labkit.yaml_values import load_yaml, read_yaml


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Descriptions as they stand, and each option's default."""


def help_field(text: str, default: Any = MISSING) -> Any:
    """A dataclass field whose option has this help; required without a default."""
    return field(default=default, metadata={"help": text})


def parse_options(
    kinds: Sequence[Any],
    argv: Sequence[str],
    *,
    presets: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({}),
    preset: str | None = None,
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
    **settings: Any,
) -> list[Any]:
    """One instance of each dataclass in ``kinds``, by transformers' HfArgumentParser.

    A field comes from its option, else from ``--config`` (a preset's name or a YAML file of fields; also
    spelled ``--preset``), else from ``defaults``, else from the dataclass. ``-p NAME VALUE`` is
    ``--NAME VALUE``.

    Args:
        kinds: dataclasses without a field in common.
        argv: what was typed.
        presets: values of fields by the preset's name.
        preset: the one that is taken without ``--config``.
        defaults: values of fields beneath the config.
        settings: of ``ArgumentParser``.

    Raises:
        ValueError: names the option, what was given and what is allowed.
        OSError: the config file cannot be read.
    """
    # 1) the config's name and, beside it, what else was typed
    first: Any = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.error = _raise
    first.add_argument(
        "--config", "--preset", default=preset, metavar="CONFIG",
        help=" or ".join([*presets, "a YAML file of these options"]),
    )  # fmt: skip
    chosen, words = first.parse_known_args(list(_spelled_out(argv)))
    # 2) an option a field; the config's values become their defaults
    known = [item.name for kind in kinds for item in fields(kind) if item.init]
    values = {**defaults, **_read(chosen.config, presets)}
    for name in values:
        if name not in known:
            raise ValueError(f"--config has no option {name!r}{checks.did_you_mean(name, known)}")
    parser = _parser(kinds, values, parents=[first], **settings)
    # 3) the instances
    try:
        *found, rest = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
    except TypeError as error:  # a value of a wrong kind in a config, from deep inside transformers
        raise ValueError(f"--config must give options values of their kind; {error}") from error
    if rest:
        hint = checks.did_you_mean(rest[0].lstrip("-").split("=")[0], known)
        raise ValueError(f"no such option: {rest[0]}{hint}")
    return found[: len(kinds)]


def _parser(kinds: Sequence[Any], values: Mapping[str, Any], **settings: Any) -> Any:
    from transformers import HfArgumentParser

    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    parser: Any = HfArgumentParser(kinds, allow_abbrev=False, formatter_class=_Help, **settings)
    parser.error = _raise
    for action in parser._actions:
        if action.dest in values:
            value = values[action.dest]
            one_of_several = action.nargs == "+" and isinstance(value, str | int | float)
            action.default, action.required = [value] if one_of_several else value, False
        if get_origin(action.type) is dict:  # argparse cannot make one of text
            action.type = _mapping
        if type(None) in get_args(hints.get(action.dest)):
            action.type = _or_null(action.type)
        action.help = action.help or getattr(action.type, "__name__", "value")  # the default stands there
    return parser


def _raise(message: str) -> None:
    raise ValueError(message)


def _spelled_out(argv: Sequence[str]) -> Iterator[str]:
    words = iter(argv)
    for word in words:
        yield f"--{next(words, '')}={next(words, '')}" if word == "-p" else word


def _read(config: str | None, presets: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if config is None or config in presets:
        return presets[config] if config else {}
    if not Path(config).is_file():
        checks.fail("--config", config, " or ".join([*presets, "a YAML file that exists"]))
    values = read_yaml(Path(config), "--config") or {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        checks.fail("--config", config, "a YAML mapping of options")
    return values


def _mapping(text: str) -> dict[Any, Any]:
    value = load_yaml(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a YAML mapping; got {text!r}")
    return value


def _or_null(read: Callable[[str], Any]) -> Callable[[str], Any]:
    @wraps(read)
    def optional(text: str) -> Any:
        return None if text == "null" else read(text)

    return optional
