"""Plans, events and requests survive JSON; secrets do not; foreign shapes are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.codec import CodecError, from_json, to_json
from orchestrator.core.base.command import Secret
from orchestrator.core.base.outcome import Exited, Lost, Outcome, Signalled, TimedOut
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Parameter, ParameterType
from orchestrator.core.run.events import Event, ProcessExited
from orchestrator.core.run.kit_reports import Reported
from tests.core.world import World, node_spec, request

outcomes = st.one_of(
    st.builds(Exited, st.integers(0, 255)),
    st.builds(Signalled, st.integers(1, 64)),
    st.builds(TimedOut, st.floats(0, 1e6)),
    st.builds(Lost, st.text()),
)


@given(outcomes, st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_events_round_trip(outcome: Outcome, line: str, at: float) -> None:
    event = ProcessExited(node="a", label="launcher", outcome=outcome, at=at, last_line=line)
    assert from_json(Event, json.loads(json.dumps(to_json(event)))) == event


def test_a_plan_and_its_request_round_trip() -> None:
    world = World(request("a", "b"))
    world.run()
    assert from_json(Plan, json.loads(json.dumps(to_json(world.state.plan)))) == world.state.plan
    again = from_json(RunRequest, json.loads(json.dumps(to_json(world.state.request))))
    assert again == world.state.request


def test_a_field_called_type_is_kept_apart_from_the_tag() -> None:
    parameter = Parameter(name="steps", type=ParameterType.INT, default=3)
    data = to_json(parameter)
    assert (data["type"], data["type_"]) == ("Parameter", "int")
    assert from_json(Parameter, data) == parameter


def test_secrets_are_masked() -> None:
    spec = replace(node_spec("a"), env={"TOKEN": Secret("hunter2")})
    assert "hunter2" not in json.dumps(to_json(spec))
    assert to_json(spec)["env"] == {"TOKEN": "***"}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"type": "Nonsense"},
        {"type": "Reported", "node": "a"},
        {**to_json(Reported(node="a", rank=0, name="n", value=1.0, unit="", step=None)), "x": 1},
        {
            **to_json(Reported(node="a", rank=0, name="n", value=1.0, unit="", step=None)),
            "rank": "0",
        },
        {
            **to_json(Reported(node="a", rank=0, name="n", value=1.0, unit="", step=None)),
            "rank": True,
        },
    ],
)
def test_foreign_shapes_are_refused(data: object) -> None:
    with pytest.raises(CodecError):
        from_json(Event, data)


def test_unknown_values_are_not_written() -> None:
    with pytest.raises(CodecError):
        to_json(object())
