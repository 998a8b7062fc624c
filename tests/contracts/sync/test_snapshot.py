"""Snapshots: the digest follows the content, and files are read only when they may have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.sync import file_digests
from orchestrator.adapters.sync.code_snapshot import (
    Snapshot,
    TreePart,
    project_parts,
    take_snapshot,
    workload_parts,
)
from orchestrator.adapters.sync.digest_index import (
    COARSE_TICK_NS,
    FINE_TICK_NS,
    TreeIndex,
    without_racy,
)
from orchestrator.adapters.sync.file_list import list_tree
from orchestrator.adapters.sync.file_stats import WIDTH
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.base.manifest import FileEntry, LinkEntry, digest_of
from tests.contracts.sync.trees import git_tree, write_tree

pytestmark = pytest.mark.processes

FILES = {"a.py": b"one", "d/b.py": b"two", "d/c.py": b"two"}
YEAR_2020_NS = 1_577_836_800 * 10**9
TRIES = 50
Reads = list[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "code", FILES)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The files that were read to take a snapshot."""
    names: Reads = []
    real = file_digests.digest_of_file

    def counted(path: str, size: int) -> bytes:
        names.append(Path(path).name)
        return real(path, size)

    monkeypatch.setattr(file_digests, "digest_of_file", counted)
    return names


@pytest.fixture
def much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading begins an hour after the files were written: none of them is racy."""
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 3600 * 10**9)


def taken(folder: Path) -> Snapshot:
    return take_snapshot([TreePart(source=folder)], folder.parent / "cache")


def paths(snapshot: Snapshot) -> list[str]:
    return [entry.path for entry in snapshot.manifest.entries]


def test_the_digest_is_that_of_the_manifest(folder: Path) -> None:
    """Contents, sizes and bits are as on disk, and the digest names exactly them."""
    (folder / "a.py").chmod(0o755)
    (folder / "link").symlink_to("d/b.py")

    snapshot = taken(folder)

    assert snapshot.digest == digest_of(snapshot.manifest.encode())
    assert snapshot.manifest.entries == (
        FileEntry("a.py", 3, True, digest_of(b"one")),
        FileEntry("d/b.py", 3, False, digest_of(b"two")),
        FileEntry("d/c.py", 3, False, digest_of(b"two")),
        LinkEntry("link", "d/b.py"),
    )
    for digest, source in snapshot.contents.sources.items():
        assert source.is_symlink() or digest_of(source.read_bytes()) == digest


@pytest.mark.parametrize("in_git", [True, False])
@pytest.mark.usefixtures("much_later")
def test_an_unchanged_tree_is_not_read_again(tmp_path: Path, reads: Reads, in_git: bool) -> None:
    """The second time nothing is read, and everything is as the first time."""
    folder = (git_tree if in_git else write_tree)(tmp_path / "code", FILES)
    (folder / "link").symlink_to("a.py")
    first = taken(folder)
    assert sorted(reads) == ["a.py", "b.py", "c.py"]
    reads.clear()

    second = taken(folder)

    assert reads == []
    assert second.digest == first.digest
    assert second.manifest == first.manifest
    assert second.contents.sources == first.contents.sources


def edit(path: Path) -> None:
    path.write_bytes(b"new")


def grow(path: Path) -> None:
    path.write_bytes(b"longer")


def restore_times(path: Path) -> None:
    """The same size and modification time, as unpacking an archive leaves it."""
    before = path.stat()
    path.write_bytes(b"ONE")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """Another file under the same name, of the same size and time."""
    before = path.stat()
    path.with_suffix(".new").write_bytes(b"ONE")
    os.utime(path.with_suffix(".new"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_suffix(".new").replace(path)


def make_executable(path: Path) -> None:
    path.chmod(0o755)


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("d/b.py")


@pytest.mark.parametrize(
    "change",
    [edit, grow, restore_times, replace, make_executable, to_link, Path.unlink],
    ids=lambda change: change.__name__,
)
@pytest.mark.usefixtures("much_later")
def test_every_change_gives_another_digest(
    folder: Path, reads: Reads, change: Callable[[Path], object]
) -> None:
    """Whatever happens to a file, the digest tells; the others are not read again."""
    first = taken(folder)
    reads.clear()

    change(folder / "a.py")
    second = taken(folder)

    assert second.digest != first.digest
    assert set(reads) <= {"a.py"}
    assert second.bases == (first.digest,)
    clean = take_snapshot([TreePart(source=folder)], folder.parent / "empty-cache")
    assert second.digest == clean.digest
    assert second.manifest == clean.manifest


def test_an_edit_within_the_clock_tick_is_noticed(tmp_path: Path, reads: Reads) -> None:
    """A file that changes right after it was read, keeping size and all times, is read again."""
    for attempt in range(TRIES):
        folder = write_tree(tmp_path / f"{attempt}" / "code", {"a.py": b"one"})
        reads.clear()
        first = taken(folder)
        rows = list_tree(folder).stats
        (folder / "a.py").write_bytes(b"two")

        index = TreeIndex.load(next(folder.parent.joinpath("cache").glob("*.index")))

        assert index is not None
        assert taken(folder).digest != first.digest
        assert reads == ["a.py", "a.py"]
        if index.stats != rows:
            return  # else the machine was so busy that the tick was over when it was read
    pytest.fail(f"the file was remembered each of {TRIES} times")


@pytest.mark.parametrize(
    "age_ns, ctime_end, racy",
    [
        (FINE_TICK_NS + 1, 123, False),
        (FINE_TICK_NS - 1000, 123, True),
        (-(10**9), 123, True),
        (COARSE_TICK_NS - 1_000_000, 0, True),
        (COARSE_TICK_NS + 1_000_000, 0, False),
    ],
)
def test_young_rows_are_not_remembered(
    tmp_path: Path, age_ns: int, ctime_end: int, racy: bool
) -> None:
    """How young depends on the file system's clock; times in the future are never remembered."""
    stats = list_tree(write_tree(tmp_path, {"a": b"", "b": b""})).stats
    for start in (0, WIDTH):
        stats[start + 2 : start + 4] = type(stats)("q", [YEAR_2020_NS] * 2)
    changed_ns = YEAR_2020_NS + 10**10 + ctime_end
    stats[3] = changed_ns

    kept = without_racy(stats, changed_ns + age_ns)

    assert (kept[:WIDTH] != stats[:WIDTH]) == racy
    assert kept[WIDTH:] == stats[WIDTH:]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"\xff" * 100, None])
@pytest.mark.usefixtures("much_later")
def test_a_damaged_index_is_no_index(folder: Path, reads: Reads, damage: bytes | None) -> None:
    """Torn, foreign or bit-flipped: files are read again, and the digest is right."""
    first = taken(folder)
    (location,) = (folder.parent / "cache").glob("*.index")
    content = bytearray(location.read_bytes())
    content[-1] ^= 1
    location.write_bytes(bytes(content) if damage is None else damage)
    reads.clear()

    assert taken(folder).digest == first.digest
    assert sorted(reads) == ["a.py", "b.py", "c.py"]


def test_a_cache_that_cannot_be_written_does_no_harm(folder: Path) -> None:
    """Without an index a snapshot is only slower."""
    cache = write_tree(folder.parent, {"cache": b"a file"}) / "cache"

    assert take_snapshot([TreePart(source=folder)], cache).files == 3


def test_a_workload_and_a_project(tmp_path: Path) -> None:
    """A workload lies under its name beside the kit; a project keeps its paths, the kit hides."""
    kit = write_tree(tmp_path, {"kits/kit/__init__.py": b"kit", "kits/kit/a.pyc": b""}) / "kits/kit"
    folder = write_tree(tmp_path / "tune", {"train.py": b"", "kit/__init__.py": b"the user's"})

    workload = take_snapshot(workload_parts(folder, [kit]), tmp_path / "cache")
    project = take_snapshot(project_parts(folder, kit), tmp_path / "cache")

    assert paths(workload) == ["kit/__init__.py", "tune/kit/__init__.py", "tune/train.py"]
    assert paths(project) == [".orchestrate/kit/kit/__init__.py", "kit/__init__.py", "train.py"]
    assert project.contents.sources[digest_of(b"kit")] == kit / "__init__.py"
    assert (workload.skipped, project.skipped) == ((), ())


def test_parts_that_collide_are_an_error(tmp_path: Path) -> None:
    """Two files cannot have one path."""
    folder = write_tree(tmp_path / "code", {"a": b"1"})
    parts = [TreePart(source=folder), TreePart(source=folder / "a", place="a")]

    with pytest.raises(UsageError, match="twice"):
        take_snapshot(parts, tmp_path / "cache")


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "d/../../outside"])
def test_a_link_that_leaves_the_tree_is_an_error(folder: Path, target: str) -> None:
    """It is named, with what to do about it; ignoring it is enough."""
    (folder / "out").symlink_to(target)

    with pytest.raises(UsageError) as caught:
        taken(folder)

    assert caught.value.id == "OR-SYNC-001"
    assert f"out -> {target}" in caught.value.where
    assert ".orchestrateignore" in caught.value.remedy
    write_tree(folder, {".orchestrateignore": b"/out\n"})
    assert "out" not in paths(taken(folder))


def test_a_workload_link_to_its_neighbour_is_an_error(tmp_path: Path) -> None:
    """A link out of one part may not rely on another part's place in the snapshot."""
    kit = write_tree(tmp_path, {"kit/__init__.py": b"kit"}) / "kit"
    folder = write_tree(tmp_path / "tune", {"train.py": b""})
    (folder / "kit.py").symlink_to("../kit/__init__.py")

    with pytest.raises(UsageError, match="leaves the tree"):
        take_snapshot(workload_parts(folder, [kit]), tmp_path / "cache")


def test_links_inside_the_tree_keep_their_meaning(folder: Path) -> None:
    """Absolute and roundabout targets inside become relative; dangling ones inside stay."""
    targets = {
        "abs": str(folder / "d" / "b.py"),
        "around": "d/../a.py",
        "dotted": "./a.py",
        "out-and-in": f"../{folder.name}/a.py",
        "dangling": "not/there",
        "d/up": "../a.py",
        "self": ".",
    }
    for name, target in targets.items():
        (folder / name).symlink_to(target)

    links = {e.path: e.target for e in taken(folder).manifest.entries if isinstance(e, LinkEntry)}

    assert links == {
        "abs": "d/b.py",
        "around": "a.py",
        "dotted": "a.py",
        "out-and-in": "a.py",
        "dangling": "not/there",
        "d/up": "../a.py",
        "self": ".",
    }


def test_tracked_files_below_a_link_do_not_travel(tmp_path: Path) -> None:
    """Where a link replaced a folder, git still names what was in it."""
    folder = git_tree(tmp_path / "code", FILES)
    (folder / "d").rename(folder / "e")
    (folder / "d").symlink_to("e")

    assert paths(taken(folder)) == ["a.py", "d", "e/b.py", "e/c.py"]


def test_an_unreadable_file_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is named; root reads everything, so the refusal is made up here."""

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(UsageError) as caught:
        file_digests.digest_of_file(str(folder / "a.py"), 3)

    assert caught.value.id == "OR-SYNC-002"
    assert caught.value.where.endswith("a.py")


def test_growing_files_travel_as_they_were(tmp_path: Path) -> None:
    """Of a log that grows meanwhile, the part that was there counts; a shorter file is an error."""
    path = write_tree(tmp_path, {"log": b"line 1\nline"}) / "log"

    assert file_digests.digest_of_file(str(path), 7).hex() == digest_of(b"line 1\n")
    with pytest.raises(PreflightError, match="changed while it was synced"):
        file_digests.digest_of_file(str(path), 100)


def test_a_manifest_is_not_made_of_other_files(folder: Path) -> None:
    """If a link changes between the digest and the manifest, that is said, not sent."""
    (folder / "link").symlink_to("a.py")
    snapshot = taken(folder)
    (folder / "link").unlink()
    (folder / "link").symlink_to("d/b.py")

    with pytest.raises(PreflightError, match="changed"):
        _ = snapshot.manifest


def test_many_files_are_read_in_threads_and_keep_their_order(tmp_path: Path) -> None:
    """A tree of more than one batch has every digest at its path."""
    files = {f"d{i % 7}/f{i}": b"%d" % i for i in range(700)}

    snapshot = taken(write_tree(tmp_path / "code", files))

    found = {e.path: e.digest for e in snapshot.manifest.files()}
    assert found == {name: digest_of(content) for name, content in files.items()}
    assert (snapshot.files, snapshot.bytes) == (700, sum(map(len, files.values())))
