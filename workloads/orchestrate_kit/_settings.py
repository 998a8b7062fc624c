"""The command line of a script, as its workload.yaml declares it.

It is the only declaration: the script's dataclass has names and types, and all else (defaults,
bounds, choices, texts, rules across parameters) comes from the file that the coordinator reads,
too. So ``python train.py`` and ``orchestrate run`` take and refuse the same.
"""

from __future__ import annotations

import argparse
import inspect
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Type, TypeVar, get_type_hints

from ._declaration import DeclarationError, read_declaration
from ._parameters import Parameter, Value, declared_parameter
from ._rules import broken_rules

Settings = TypeVar("Settings")

FILE = "workload.yaml"
MAX_PARENTS = 8


def parse(settings: Type[Settings], argv: Optional[Sequence[str]] = None) -> Settings:
    """The command line (``sys.argv[1:]`` without ``argv``) as a dataclass.

    ``settings`` has a field for each parameter of the workload.yaml beside its file, or in a folder
    above: its name and its type (``int``, ``float``, ``bool``, ``str`` for texts and choices, and
    ``Union[int, str]`` where words are valid in place of a number), no default. What makes no
    sense ends the process with status 2 and the reason. Raises :class:`DeclarationError` if
    dataclass and declaration do not fit together, or the file is not plain YAML.
    """
    path = _declaration_of(settings)
    declared = read_declaration(path.read_text(encoding="utf-8").lstrip("\ufeff"), str(path))
    parameters = _parameters(declared.get("parameters") or {}, str(path))
    _check_fields(settings, parameters, str(path))
    parser = _parser(parameters, str(declared.get("summary") or ""))
    values = vars(parser.parse_args(argv))
    for complaint in broken_rules(declared.get("rules") or [], values, parameters, str(path)):
        parser.error(complaint)
    return settings(**values)


def _declaration_of(settings: type) -> Path:
    try:
        folder = Path(inspect.getfile(settings)).resolve().parent
    except (OSError, TypeError):
        raise DeclarationError("%s is in no file" % settings.__name__) from None
    for parent in [folder, *folder.parents][:MAX_PARENTS]:
        if (parent / FILE).is_file():
            return parent / FILE
    raise DeclarationError("no %s in %s, or in a folder above" % (FILE, folder))


def _parameters(entries: Any, source: str) -> Dict[str, Parameter]:
    if not isinstance(entries, dict):
        raise DeclarationError("%s: parameters: expected names" % source)
    return {name: declared_parameter(name, entry, source) for name, entry in entries.items()}


def _check_fields(settings: type, parameters: Mapping[str, Parameter], source: str) -> None:
    """One field for each parameter, of its type, without a second declaration of anything."""
    if not is_dataclass(settings):
        raise DeclarationError("%s is not a dataclass" % settings.__name__)
    types = get_type_hints(settings)
    known = {field.name: field for field in fields(settings)}
    for name in [*known, *parameters]:
        where = "%s.%s" % (settings.__name__, name)
        if name not in parameters:
            close = get_close_matches(name, parameters, 1)
            hint = "; did you mean %s?" % close[0] if close else ""
            raise DeclarationError("%s is not a parameter of %s%s" % (where, source, hint))
        if name not in known:
            raise DeclarationError("%s is missing: %s declares it" % (where, source))
        field, wanted = known[name], parameters[name].annotation
        if field.default is not MISSING or field.default_factory is not MISSING:
            raise DeclarationError("%s has a default: %s declares it" % (where, source))
        if types[name] != wanted:
            shown = wanted.__name__ if isinstance(wanted, type) else str(wanted)
            raise DeclarationError("%s is not of the type %s, as in %s" % (where, shown, source))


def _parser(parameters: Mapping[str, Parameter], summary: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=summary, usage="%(prog)s [-h] [--name value ...]", allow_abbrev=False
    )
    for parameter in parameters.values():
        default = parameter.checked(parameter.default)
        options: Dict[str, Any] = {"dest": parameter.name, "default": default}
        text = ("%s (%s)" % (parameter.help, _meaning(parameter, default))).strip()
        options["help"] = text.replace("%", "%%")
        if parameter.type == "bool":
            parser.add_argument(parameter.flag, action="store_true", **options)
            options["help"] = "the opposite"
            parser.add_argument("--no-" + parameter.flag[2:], action="store_false", **options)
        else:
            parser.add_argument(parameter.flag, type=_converter(parameter), **options)
    return parser


def _converter(parameter: Parameter) -> Callable[[str], Value]:
    def convert(text: str) -> Value:
        try:
            return parameter.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _meaning(parameter: Parameter, default: Value) -> str:
    """Which values it may have, and which it has by itself."""
    if isinstance(default, bool):
        return "default: %s" % ("yes" if default else "no")
    return "%s; default: %s" % (parameter.expected, "empty" if default == "" else default)
