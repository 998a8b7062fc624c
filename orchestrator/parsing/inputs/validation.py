"""Pydantic's findings, retold as problems with file:line:column and the nearest valid key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.core.base.suggest import describe_value, did_you_mean
from orchestrator.parsing.inputs.yaml_source import Document, InputProblem, Path, refuse_input

Model = TypeVar("Model", bound=BaseModel)

# What YAML 1.1 read as a boolean, and YAML 1.2 reads as text.
_OLD_BOOLEANS = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "no": "false",
    "off": "false",
    "n": "false",
}
_REALLY = "is this the file you meant?"
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
}


class Strict(BaseModel):
    """Base of all schemas: no conversion between types, no unknown keys."""

    # Built when something is validated with it: most commands need few of them.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)


def validate_document(model: type[Model], document: Document) -> Model:
    """``document`` as ``model``. Raises :class:`UsageError` that lists every problem."""
    if document.root.value is None:
        refuse_input(
            [*document.problems, InputProblem(document.root.place, "the file is empty")],
            document.source,
        )
    if (stranger := _foreign_file_problem(document, tuple(model.model_fields))) is not None:
        refuse_input([stranger], document.source)
    try:
        entry = model.model_validate(document.root.plain())
    except ValidationError as error:
        schema = model.model_json_schema()
        found = [_make_problem(details, document, schema) for details in error.errors()]
        refuse_input([*document.problems, *found], document.source)
    if document.problems:
        refuse_input(document.problems, document.source)
    return entry


def _foreign_file_problem(document: Document, known: Sequence[str]) -> InputProblem | None:
    """What to say of a file that is something else altogether, without a word of what it holds."""
    root = document.root
    if not isinstance(root.value, dict):
        kind = "a list" if isinstance(root.value, list) else "plain text or a number"
        return InputProblem(root.place, f"expected a mapping, found {kind}", _REALLY)
    if root.value and not root.value.keys() & set(known):
        what = f"none of the keys {', '.join(known)} is here"
        return InputProblem(root.place, what, _REALLY)
    return None


def _make_problem(
    details: ErrorDetails, document: Document, schema: dict[str, Any]
) -> InputProblem:
    path, kind = details["loc"], details["type"]
    at_key = bool(path) and path[-1] == "[key]"
    path = path[:-1] if at_key else path
    if kind == "extra_forbidden":
        remedy = did_you_mean(str(path[-1]), keys_at(schema, path[:-1]))
        return InputProblem(
            document.place(path, key=True), f"unknown key {str(path[-1])!r}", remedy
        )
    if kind == "missing":
        where = f" in {show_path(path[:-1])}" if path[:-1] else ""
        return InputProblem(document.place(path[:-1]), f"key {str(path[-1])!r} is missing{where}")
    name = show_path(path)
    what, remedy = _explain_error(kind, details)
    place = document.place(path, key=at_key)
    return InputProblem(place, f"{name}: {what}" if name else what, remedy)


def _explain_error(kind: str, details: ErrorDetails) -> tuple[str, str]:
    value = details["input"]
    if kind in _EXPECTED:
        remedy = ""
        if kind == "bool_type" and isinstance(value, str):
            word = _OLD_BOOLEANS.get(value.lower(), "true or false")
            remedy = f"write {word}"
        elif kind == "string_type" and isinstance(value, bool | int | float):
            remedy = "put it in quotes"
        return f"expected {_EXPECTED[kind]}, found {describe_value(value)}", remedy
    if kind == "literal_error":
        valid = details["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{describe_value(value)} is not one of {', '.join(valid)}", did_you_mean(
            str(value), valid
        )
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "value_error":
        return message, ""
    if kind == "too_short":
        return (
            f"needs at least {details['ctx']['min_length']}, has {details['ctx']['actual_length']}",
            "",
        )
    return f"{message}, found {describe_value(value)}", ""


def show_path(path: Path) -> str:
    """``nodes[2].gpus.count``, as people write it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def keys_at(schema: Mapping[str, Any], path: Path) -> list[str]:
    """The keys that a JSON schema allows in the mapping at ``path``."""
    options = _schema_alternatives(schema, schema)
    for step in path:
        options = [found for option in options for found in _descend_schema(schema, option, step)]
    return [key for option in options for key in option.get("properties", {})]


def _descend_schema(
    root: Mapping[str, Any], option: Mapping[str, Any], step: str | int
) -> list[Mapping[str, Any]]:
    child: object
    if isinstance(step, int):
        child = option.get("items")
    else:
        child = option.get("properties", {}).get(step, option.get("additionalProperties"))
    return _schema_alternatives(root, child) if isinstance(child, Mapping) else []


def _schema_alternatives(
    root: Mapping[str, Any], schema: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The alternatives of ``schema`` with references followed."""
    if "$ref" in schema:
        return _schema_alternatives(root, root["$defs"][schema["$ref"].rpartition("/")[2]])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return [found for part in schema[key] for found in _schema_alternatives(root, part)]
    return [schema]
