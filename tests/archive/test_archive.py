"""An archive is whole or refused, whatever happened to it, and needs nothing of ours to be read."""

from __future__ import annotations

import gzip
import io
import resource
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.archive.read_archive import read_archive
from orchestrator.adapters.archive.write_archive import Member, folder_members, write_archive
from orchestrator.core.base.errors import UsageError

MADE = 1_790_000_000.5
CONTENT = {"runs/a/result.json": b"{}", "runs/a/log": b"x" * 5000, "empty": b"", "Größe µ": b"1"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "quick-1.tar.gz"
    write(path)
    return path


def write(path: Path) -> None:
    members = [Member(name, content) for name, content in CONTENT.items()]
    write_archive(path, "suite", members, made=MADE, about={"exit_code": 0})


def test_what_was_written_is_read(archive: Path) -> None:
    found = read_archive(archive, lambda name: name.startswith("runs/"))

    assert (found.manifest.kind, found.manifest.name) == ("suite", "quick-1")
    assert (found.manifest.made, found.manifest.about) == (MADE, {"exit_code": 0})
    assert {file.path: file.bytes for file in found.manifest.files} == {
        name: len(content) for name, content in CONTENT.items()
    }
    assert found.files == {n: c for n, c in CONTENT.items() if n.startswith("runs/")}


def test_the_same_files_make_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    members = [Member(name, content) for name, content in reversed(CONTENT.items())]
    write_archive(archive, "suite", members, made=MADE, about={"exit_code": 0})

    assert archive.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


@pytest.mark.processes
def test_tar_and_sha256sum_read_it(archive: Path, tmp_path: Path) -> None:
    """Its owner needs no program of ours, today or in ten years."""
    subprocess.run(["tar", "xzf", archive.name], cwd=tmp_path, check=True)
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"],
        cwd=tmp_path / "quick-1",
        check=True,
        capture_output=True,
        text=True,
    )

    assert len(checked.stdout.splitlines()) == len(CONTENT) + 1
    assert (tmp_path / "quick-1" / "runs/a/log").read_bytes() == CONTENT["runs/a/log"]


def test_a_folder_becomes_members_without_its_links(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("/etc/passwd")

    assert [m.path for m in folder_members(tmp_path, "run/")] == ["run/deep/file"]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """An archive's place and content."""
    path = tmp_path_factory.mktemp("damaged") / "quick-1.tar.gz"
    write(path)
    return path, path.read_bytes()


@given(st.data())
def test_no_damage_passes(once: tuple[Path, bytes], data: st.DataObject) -> None:
    """One byte that is another, or an end that is missing: refused with its name, never read."""
    path, content = once
    whole = bytearray(content)
    # Bytes 4 to 9 are gzip's time, flags of its maker and system, which no reader uses.
    at = data.draw(st.integers(10, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        del whole[at:]
    path.write_bytes(whole)

    with pytest.raises(UsageError) as refused:
        read_archive(path)
    assert refused.value.id == "archive.damaged"
    assert str(path) in str(refused.value)


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def _replace(index: int, name: str | None = None, kind: bytes = tarfile.REGTYPE) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info, content = members[index]
        other = tarfile.TarInfo(name or info.name)
        other.type, other.linkname, other.size = kind, "/etc/passwd", len(content)
        members[index] = (other, content)

    return change


@pytest.mark.parametrize(
    "change, what",
    [
        (lambda members: members.pop(), "is missing"),
        (lambda members: members.append(members[-1]), "or is there twice"),
        (lambda members: members.reverse(), "manifest.json is not where it should be"),
        (lambda members: members.pop(1), "SHA256SUMS is not where it should be"),
        (lambda members: members.clear(), "manifest.json is not where it should be"),
        (_replace(3, "quick-1/../../out"), "is not in its manifest"),
        (_replace(3, kind=tarfile.SYMTYPE), "is not a regular file"),
        (_replace(3, kind=tarfile.FIFOTYPE), "is not a regular file"),
    ],
)
def test_foreign_archives_are_refused(archive: Path, change: Change, what: str) -> None:
    with tarfile.open(archive) as tar:
        members = [(info, _content(tar, info)) for info in tar]
    change(members)
    with tarfile.open(archive, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))

    with pytest.raises(UsageError, match=what):
        read_archive(archive)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None
    return file.read()


def test_a_header_that_names_gigabytes_costs_no_memory(archive: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    with gzip.open(archive, "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 1024)

    with pytest.raises(UsageError, match="a header of unusual length"):
        read_archive(archive)


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a//b", "a\\b", "a\nb", ""])
def test_no_file_is_archived_outside_of_its_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="cannot be archived"):
        write_archive(tmp_path / "x.tar.gz", "suite", [Member(path, b"")], made=MADE, about={})


def test_a_full_disk_leaves_what_was_there(archive: Path, tmp_path: Path) -> None:
    """The archive of before stays, no part of a new one, and no temporary file."""
    before = archive.read_bytes()
    noise = tmp_path / "noise"
    noise.write_bytes(bytes(i * i % 251 for i in range(200_000)))
    with most_bytes_of_a_file(500), pytest.raises(OSError, match="too large"):
        write_archive(archive, "suite", [Member("noise", noise)], made=MADE, about={})

    assert archive.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise", archive.name]


@contextmanager
def most_bytes_of_a_file(limit: int) -> Iterator[None]:
    """The kernel refuses to write more, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
