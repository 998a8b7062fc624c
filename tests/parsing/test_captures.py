"""``--capture`` and the files that samplers leave."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import SourceLocation, UsageError
from orchestrator.core.model.captures import Capture, CaptureKind
from orchestrator.parsing.captures.sampled import BadCapture, parse_index, parse_samples
from orchestrator.parsing.inputs.capture_kinds import default_profile, parse_captures

CAPTURES = st.one_of(
    st.sampled_from([Capture(kind=k) for k in CaptureKind if k is not CaptureKind.PROFILE]),
    st.builds(
        Capture,
        kind=st.just(CaptureKind.PROFILE),
        seconds=st.integers(1, 60).map(float),
        after_s=st.integers(0, 86_400).map(float),
    ),
)


@given(captures=st.lists(CAPTURES, min_size=1, unique_by=lambda capture: capture.kind))
def test_what_is_written_is_read_in_one_order(captures: list[Capture]) -> None:
    texts = [capture.text for capture in captures]
    order = list(CaptureKind)
    expected = tuple(sorted(captures, key=lambda capture: order.index(capture.kind)))
    assert parse_captures(texts) == expected
    assert parse_captures([" , ".join(texts), texts[0]]) == expected


def test_a_profile_has_times_of_its_own() -> None:
    assert parse_captures(["profile"]) == (default_profile(),)
    assert parse_captures(["profile=2"])[0].seconds == 2
    assert parse_captures([]) == ()


@pytest.mark.parametrize(
    "text, told",
    [
        ("nvlnk", "did you mean 'nvlink'?"),
        ("", "no capture is called ''"),
        ("power,", "no capture is called ''"),
        ("power=5", "takes no value"),
        ("profile=0", "0 seconds"),
        ("profile=61", "0 to 60 seconds"),
        ("profile=nan@3", "0 to 60 seconds"),
        ("profile=5@-1", "0 to 86400 seconds"),
        ("profile=5@", "0 to 86400 seconds"),
        ("profile=5,profile=6", "asked for twice"),
    ],
)
def test_bad_captures_are_refused(text: str, told: str) -> None:
    where = SourceLocation("suite.yaml", 7)
    with pytest.raises(UsageError) as error:
        parse_captures([text], where=where)
    refusal = error.value
    assert told in f"{refusal.what} {refusal.why} {refusal.remedy}"
    assert "suite.yaml:7" in str(refusal.where)


ROWS = st.lists(
    st.tuples(
        st.floats(0, 1e6),
        st.integers(0, 7),
        st.none() | st.integers(0, 10**6),
        st.none() | st.integers(0, 10**6),
        st.none() | st.integers(0, 10**15),
    ),
    max_size=60,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))


def power_csv(rows: list[tuple[Any, ...]]) -> bytes:
    lines = [",".join("" if cell is None else repr(cell) for cell in row) for row in rows]
    return "\n".join(["t,gpu,instant_mw,average_mw,energy_mj", *lines, ""]).encode()


@given(rows=ROWS)
def test_samples_come_back_by_gpu_and_column(rows: list[tuple[Any, ...]]) -> None:
    samples = parse_samples("power", power_csv(rows), began=0.0)
    assert sum(map(len, samples.rows.values())) == len(rows)
    for gpu in {row[1] for row in rows}:
        expected = [(row[0], row[4]) for row in rows if row[1] == gpu and row[4] is not None]
        assert list(samples.points((gpu,), "energy_mj")) == expected


@given(data=st.binary(max_size=300), kind=st.sampled_from(["power", "nvlink"]))
def test_nothing_but_a_bad_capture_comes_of_any_bytes(data: bytes, kind: str) -> None:
    heads = {"power": power_csv([]), "nvlink": b"t,gpu,link,sent_kib,received_kib\n"}
    for document in (data, heads[kind] + data):
        with contextlib.suppress(BadCapture):
            parse_samples(kind, document, began=0.0)
        with contextlib.suppress(BadCapture):
            parse_index(document)


@pytest.mark.parametrize(
    "line, told",
    [
        ("1,0,5,5", "line 2: 4 cells, expected 5"),
        ("1,0,inf,5,5", "line 2: not a finite number"),
        ("1,-2,5,5,5", "line 2: no such GPU"),
        ("x,0,5,5,5", "line 2: could not convert"),
        ("2,0,5,5,5\n1,0,5,5,5", "line 3: it goes back in time"),
    ],
)
def test_a_bad_line_is_named(line: str, told: str) -> None:
    with pytest.raises(BadCapture, match=told):
        parse_samples("power", power_csv([]) + line.encode() + b"\n", began=0.0)


def test_a_torn_last_line_is_left_out() -> None:
    data = power_csv([(1.0, 0, 5, 5, 5)]) + b"2.0,0,5"
    assert len(parse_samples("power", data, began=0.0).rows[0,]) == 1


def test_an_index_without_what_it_needs_is_refused() -> None:
    with pytest.raises(BadCapture, match=r"index\.captures: is missing"):
        parse_index(json.dumps({"gpus": [], "began": 1.0}).encode())
