"""What values of parameters are to be, in a workload.yaml."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from orchestrator.core.base.suggest import describe_value
from orchestrator.parsing.inputs.validation import Strict
from orchestrator.parsing.inputs.workloads.schema_types import (
    Help,
    Number,
    ParameterName,
    Value,
    parameter_name,
)


def _check_value(value: Any) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"expected text, a number, true or false, found {describe_value(value)}")


def _check_bound(value: Any) -> Any:
    if isinstance(value, str):
        return parameter_name(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise ValueError(f"expected a number or a parameter's name, found {describe_value(value)}")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _normalise_condition(value: Any) -> Any:
    return value if isinstance(value, dict) else {"any_of": value}


# One problem for what is none of the types, instead of one for each of them.
AnyValue = Annotated[Any, PlainValidator(_check_value, json_schema_input_type=Value)]
Values = Annotated[
    list[AnyValue],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=Value | list[Value]),
]
Bound = Annotated[Any, PlainValidator(_check_bound, json_schema_input_type=Number | str)]


class ConditionEntry(Strict):
    """What a value is to be: all of this. A value or a list L is short for {any_of: L}."""

    any_of: Values | None = Field(default=None, description="It is one of these")
    none_of: Values | None = Field(default=None, alias="not", description="It is none of these")
    min: Bound | None = Field(
        default=None, description="It is at least this number, or the parameter of this name"
    )
    max: Bound | None = Field(
        default=None, description="It is at most this number, or the parameter of this name"
    )

    @model_validator(mode="after")
    def _some(self) -> ConditionEntry:
        if not self.model_fields_set:
            raise ValueError("a condition needs any_of, not, min or max")
        return self


Conditions = dict[
    ParameterName,
    Annotated[
        ConditionEntry,
        BeforeValidator(
            _normalise_condition, json_schema_input_type=Value | list[Value] | ConditionEntry
        ),
    ],
]


class RuleEntry(Strict):
    """Parameters that do not go together otherwise; found before anything is contacted."""

    when: Conditions = Field(
        default_factory=dict, description="Parameter name -> value; the rule is for where all hold"
    )
    require: Conditions = Field(
        min_length=1, description="Parameter name -> value; all of these have to hold then"
    )
    why: Help = Field(min_length=1, description="The reason, shown to the user who breaks the rule")

    @model_validator(mode="after")
    def _about_two(self) -> RuleEntry:
        both = sorted(self.when.keys() & self.require.keys())
        if both:
            raise ValueError(f"{both[0]} is in both when and require")
        bounds = [bound for item in self.require.values() for bound in (item.min, item.max)]
        if not self.when and not any(isinstance(bound, str) for bound in bounds):
            raise ValueError(
                "without when, require compares parameters, as in {most: {min: least}}; "
                "what holds for one alone is declared there"
            )
        return self
