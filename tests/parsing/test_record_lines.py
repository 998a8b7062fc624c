"""What is checked of every line that ranks write, whoever reads it."""

from __future__ import annotations

import pytest

from orchestrator.parsing.replies.kit_records import parse_report
from orchestrator.parsing.replies.record_lines import as_float, as_int
from orchestrator.parsing.replies.round_records import parse_told
from orchestrator.parsing.replies.sample_records import parse_sample_record

MIB = 1 << 20


@pytest.mark.parametrize(
    "line, wrong",
    [
        (b"x" * (3 * MIB), f"a line of {3 * MIB} bytes; at most "),
        (b"{", "a line that is not JSON"),
        (b"\xff", "a line that is not JSON"),
        (b"[" * 60_000, "a line that is not JSON"),
        (b"[1]", "something that is not an object"),
        (b'{"type": 7}', "a record of unknown type '7'"),
        (b"{}", "a record of unknown type 'None'"),
    ],
)
def test_every_reader_says_the_same_of_a_bad_line(line: bytes, wrong: str) -> None:
    """It is described, and nothing is raised."""
    of_rank = parse_report("a", 3, line, position=0)

    assert isinstance(of_rank, str)
    assert of_rank.startswith(f"rank 3 reported {wrong}")
    assert str(parse_told(line)).startswith(wrong)
    assert str(parse_sample_record(line, total=1, groups=1)).startswith(wrong)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("-inf"), 10**400])
def test_what_is_no_number(value: object) -> None:
    """Neither truth values nor what a float cannot hold."""
    assert as_float(value) is None


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, 4])
def test_what_is_no_whole_number_of_the_range(value: object) -> None:
    """Both bounds belong to the range."""
    assert as_int(value, 1, 3) is None
    assert [as_int(n, 1, 3) for n in (1, 3)] == [1, 3]
