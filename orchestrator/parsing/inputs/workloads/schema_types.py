"""Types of texts and numbers in a workload.yaml."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from orchestrator.core.verdict.last_words import FAILURE_ID

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def _check_label(text: str) -> str:
    if not _LABEL.fullmatch(text) or len(text) > 128:
        raise ValueError(f"not a plain name (letters, digits, . _ -): {text[:80]!r}")
    return text


def parameter_name(text: str) -> str:
    """What a parameter may be called. Raises ``ValueError``."""
    if not _PARAMETER.fullmatch(text) or text == "preset" or text.startswith("no_"):
        what = "lower-case letters, digits and _, not `preset`, not starting with no_"
        raise ValueError(f"not a parameter name ({what}): {text[:80]!r}")
    return text


def _check_module(text: str) -> str:
    if not _MODULE.fullmatch(text):
        raise ValueError(f"not a Python module name: {text[:80]!r}")
    return text


def _check_printable(text: str) -> str:
    if _CONTROL.search(text.replace("\n", " ").replace("\t", " ")):
        raise ValueError("holds a control character")
    return text


def _check_failure_id(text: str) -> str:
    if not FAILURE_ID.fullmatch(text):
        raise ValueError(f"not an id of a failure, such as MY-MODEL-001: {text[:80]!r}")
    return text


def _check_inside(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or path.is_absolute() or ".." in path.parts or text.startswith("-"):
        raise ValueError(f"{text!r} must be a path inside the workload's folder")
    if _CONTROL.search(text):
        raise ValueError("holds a control character")
    return text


Label = Annotated[str, AfterValidator(_check_label)]
ParameterName = Annotated[str, AfterValidator(parameter_name)]
Module = Annotated[str, AfterValidator(_check_module)]
InsidePath = Annotated[str, Field(max_length=4096), AfterValidator(_check_inside)]
FailureId = Annotated[str, AfterValidator(_check_failure_id)]
Help = Annotated[str, Field(max_length=2000), AfterValidator(_check_printable)]
Number = Annotated[float, Field(allow_inf_nan=False)]
# Left to right keeps 3 a whole number and true a truth value: the types are strict.
Value = bool | int | Number | str
