"""The samples of divisible work: read once, told exactly, copied complete and verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.store.data_set import DataSet, sample_set
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.model.request import SampleSet
from orchestrator.core.model.workload import Job, ParameterValue, SampleSource, Workload

SOURCE = SampleSource(file="file", count="count", group="group")


def asked(file: Path | str = "", count: int = 0, group: int = 2) -> SampleSet | None:
    workload = Workload(name="w", source="w.yaml", folder="/w", samples=SOURCE)
    values: dict[str, ParameterValue] = {"file": str(file), "count": count, "group": group}
    return sample_set(Job(workload=workload, values=values))


def of_file(path: Path, count: int = 0) -> SampleSet:
    found = asked(path, count)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "content,count,lines",
    [
        (b"1\n2\n3\n", 0, [b"1", b"2", b"3"]),
        (b"1\n2\n3", 2, [b"1", b"2"]),
        (b'"a"\r\n{"b":\r1}\r\n', 0, [b'"a"', b'{"b":\r1}']),
        (b"null", 5, [b"null"]),
        (b'\xef\xbb\xbf{"a": 1}\r\n2\n', 0, [b'{"a": 1}', b"2"]),
        (b"\xef\xbb\xbf1\n2\n", 1, [b"1"]),
    ],
)
def test_a_file_is_its_lines(
    tmp_path: Path, content: bytes, count: int, lines: list[bytes]
) -> None:
    """As many as asked for, or all; the copy holds exactly them, whatever ends a line."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    samples = of_file(path, count)
    data = DataSet.open(samples, tmp_path / "work")

    assert samples.total == len(lines)
    assert data.lines(0, len(lines)) == lines
    assert [data.lines(number, 1) for number in range(len(lines))] == [[line] for line in lines]
    assert data.size(0, len(lines)) == sum(len(line) + 1 for line in lines)
    data.close()


@given(values=st.lists(st.integers() | st.text(alphabet="ab\u2028é"), min_size=1, max_size=9))
def test_any_samples_come_back(
    values: list[int | str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also with characters that some take for the end of a line."""
    folder = tmp_path_factory.mktemp("data")
    lines = [json.dumps(value, ensure_ascii=False).encode() for value in values]
    (folder / "data.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    data = DataSet.open(of_file(folder / "data.jsonl"), folder / "work")
    assert data.lines(0, len(lines)) == lines
    data.close()


@pytest.mark.parametrize(
    "line,what",
    [
        (b"{no", "not JSON"),
        (b"", "an empty line"),
        (b'"' + b"x" * 1_100_000 + b'"', "more than 1048576 bytes"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\xff", "not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, what: str) -> None:
    """With file and line; one that is not asked for does not matter."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"1\n2\n" + line + b"\n4\n")
    with pytest.raises(UsageError, match=what) as caught:
        asked(path)
    assert caught.value.where == f"{path}:3"
    assert of_file(path, 2).total == 2


@pytest.mark.parametrize(
    "file,count,group,what",
    [
        ("", 0, 1, "count is 0"),
        ("", -1, 1, "count is -1"),
        ("", 5, 0, "group is 0"),
        ("", 10**9, 1, "from 1 to"),
        ("absent.jsonl", 0, 1, "cannot be read"),
        ("/", 0, 1, "cannot be read"),
        ("/dev/null", 0, 1, "no sample"),
    ],
)
def test_no_samples_are_no_work(file: str, count: int, group: int, what: str) -> None:
    """Numbers that make no sense, and files that cannot be read."""
    with pytest.raises(UsageError, match=what):
        asked(file, count, group)


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    """The run works on what it was asked for, or says why not; a copy once made is enough."""
    path = tmp_path / "data.jsonl"
    path.write_text("1\n2\n")
    samples = of_file(path)
    path.write_text("1\n3\n")
    with pytest.raises(PreflightError, match="changed since"):
        DataSet.open(samples, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
    path.write_text("1\n2\n3\n")  # it only grew
    DataSet.open(samples, tmp_path / "work").close()
    path.unlink()
    data = DataSet.open(samples, tmp_path / "work")
    assert data.lines(1, 1) == [b"2"]
    data.close()


@pytest.mark.parametrize(
    "line,said",
    [
        (b'{"prompts": "x"}', ['no {"prompt": ...} or {"messages": ...} in it', "prompt"]),
        (b"[1]", ["not an object"]),
        (b"null", ["not an object"]),
    ],
)
def test_a_sample_that_the_workload_cannot_take_is_named(
    tmp_path: Path, line: bytes, said: list[str]
) -> None:
    """With its line, before anything is contacted; either key will do."""
    source = SampleSource(file="file", count="count", group="group", any_of=("prompt", "messages"))
    workload = Workload(name="w", source="w.yaml", folder="/w", samples=source)
    path = tmp_path / "data.jsonl"
    values: dict[str, ParameterValue] = {"file": str(path), "count": 0, "group": 1}
    path.write_bytes(b'{"prompt": "a"}\n{"messages": [], "id": 3}\n')
    assert sample_set(Job(workload=workload, values=values)) is not None
    path.write_bytes(b'{"prompt": "a"}\n' + line + b"\n")
    with pytest.raises(UsageError) as caught:
        sample_set(Job(workload=workload, values=values))
    assert str(caught.value.where).endswith("data.jsonl:2")
    assert all(words in str(caught.value) for words in said)
