"""Which files travel, and what is said about those that do not."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.sync import file_list as files_module
from orchestrator.adapters.sync.file_list import FileList, list_tree
from orchestrator.adapters.sync.file_stats import SIZE, WIDTH
from orchestrator.adapters.sync.skip_report import MAX_COUNTED, Skipped
from orchestrator.core.base.errors import UsageError
from tests.contracts.sync.trees import git, git_tree, write_tree

pytestmark = pytest.mark.processes


def listed(folder: Path) -> list[str]:
    return sorted(list_tree(folder).names)


def skipped(files: FileList) -> dict[str, Skipped]:
    return {row.rule: row for row in files.skipped}


def test_git_decides_in_a_work_tree(tmp_path: Path) -> None:
    """Tracked and new files travel, even where a rule names a tracked one; ignored ones do not."""
    folder = git_tree(tmp_path, {"a.py": b"", "kept.log": b"", "sub/b.py": b""})
    write_tree(
        folder,
        {
            ".gitignore": b"*.log\n/data/\n",
            "new.py": b"",
            "x.log": b"12",
            "data/huge": b"123",
            "data/deep/er": b"4",
            "sub/y.log": b"",
        },
    )

    files = list_tree(folder)

    assert sorted(files.names) == [".gitignore", "a.py", "kept.log", "new.py", "sub/b.py"]
    rules = skipped(files)
    assert set(rules) == {".gitignore:1: *.log", ".gitignore:2: /data/"}
    assert (rules[".gitignore:2: /data/"].files, rules[".gitignore:2: /data/"].bytes) == (2, 4)
    assert rules[".gitignore:1: *.log"].files == 2
    assert "data/" in str(rules[".gitignore:2: /data/"])


def test_a_folder_inside_a_work_tree_is_listed_by_itself(tmp_path: Path) -> None:
    """Only what is below the folder travels, by names relative to it, with the rules above it."""
    folder = git_tree(tmp_path, {"top.py": b"", "sub/b.py": b"", ".gitignore": b"*.log\n"})
    write_tree(folder, {"sub/x.log": b"", "sub/new": b""})

    assert listed(folder / "sub") == ["b.py", "new"]


def test_deleted_and_conflicting_files(tmp_path: Path) -> None:
    """A tracked file that is gone does not travel; one in conflict travels once."""
    folder = git_tree(tmp_path, {"a": b"1", "b": b"1", "gone": b""})
    git(folder, "checkout", "--quiet", "-b", "other")
    write_tree(folder, {"a": b"2"})
    git(folder, "commit", "--quiet", "-am", "2")
    git(folder, "checkout", "--quiet", "-")
    write_tree(folder, {"a": b"3"})
    git(folder, "commit", "--quiet", "-am", "3")
    with pytest.raises(Exception, match="merge"):
        git(folder, "merge", "other")
    (folder / "gone").unlink()

    assert listed(folder) == ["a", "b"]


def test_submodules_and_inner_repositories(tmp_path: Path) -> None:
    """They are listed by their own rules; a submodule that is not checked out is reported."""
    library = git_tree(tmp_path / "library", {"lib.py": b"", ".gitignore": b"*.tmp\n"})
    folder = git_tree(tmp_path / "project", {"main.py": b""})
    git(folder, "submodule", "--quiet", "add", str(library), "vendor/lib")
    git(folder, "submodule", "--quiet", "add", str(library), "empty")
    git(folder, "submodule", "--quiet", "deinit", "--force", "empty")
    write_tree(folder, {"vendor/lib/x.tmp": b"", "vendor/lib/new.py": b""})
    git_tree(folder / "inner", {"i.py": b"", "deep/j.py": b""})

    files = list_tree(folder)

    assert sorted(files.names) == [
        ".gitmodules",
        "inner/deep/j.py",
        "inner/i.py",
        "main.py",
        "vendor/lib/.gitignore",
        "vendor/lib/lib.py",
        "vendor/lib/new.py",
    ]
    assert skipped(files)["submodule that is not checked out"].examples == ("empty",)


@pytest.mark.parametrize("make", [git_tree, write_tree])
def test_what_the_coordinator_keeps_in_the_project_stays_behind(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    """Its journal grows while it would travel; a folder whose name only begins alike does."""
    folder = make(tmp_path / "project", {"a.py": b"", "home2/b": b"", ".orchestrateignore": b"!*"})
    write_tree(folder, {"home/runs/1/journal.jsonl": b"{}"})

    files = list_tree(folder, own=folder / "home")

    assert "home/runs/1/journal.jsonl" not in files.names
    assert {"a.py", "home2/b"} <= set(files.names)
    assert skipped(files)["files of orchestrate itself"].files == 1
    assert list_tree(folder, own=tmp_path / "elsewhere").names != files.names


def test_outside_git_everything_travels_but_the_usual(tmp_path: Path) -> None:
    """Without git, caches, environments and repositories' innards stay behind, and are counted."""
    write_tree(
        tmp_path,
        {
            "a.py": b"",
            "d/b.txt": b"",
            "d/__pycache__/b.cpython.pyc": b"123",
            "old.pyc": b"",
            ".venv/lib/x.py": b"",
            "node_modules/m/index.js": b"",
            ".env": b"",
        },
    )

    files = list_tree(tmp_path)

    assert sorted(files.names) == [".env", "a.py", "d/b.txt"]
    assert skipped(files)["default: __pycache__"].bytes == 3
    assert set(skipped(files)) == {
        "default: __pycache__",
        "default: *.pyc",
        "default: .venv",
        "default: node_modules",
    }


def test_an_environment_that_git_does_not_ignore_stays_behind(tmp_path: Path) -> None:
    """The usual names stay behind in a repository too, unless they are tracked."""
    folder = git_tree(tmp_path, {"a.py": b"", "venv/tracked.py": b""})
    write_tree(folder, {".venv/lib/x.py": b"", "d/__pycache__/b.pyc": b""})

    assert listed(folder) == ["a.py", "venv/tracked.py"]


def test_a_folder_that_its_repository_ignores_is_walked(tmp_path: Path) -> None:
    """A package installed in a project's environment is code, whatever the project ignores."""
    git_tree(tmp_path, {".gitignore": b".venv/\n"})
    package = write_tree(tmp_path / ".venv/lib/package", {"w.py": b"", "__pycache__/w.pyc": b""})

    assert listed(package) == ["w.py"]


def test_an_empty_folder_of_a_repository_is_empty(tmp_path: Path) -> None:
    """If each file by itself is ignored, nothing travels: none is sent by accident."""
    git_tree(tmp_path, {".gitignore": b"*.secret\n"})
    folder = write_tree(tmp_path / "sub", {"a.secret": b""})

    assert listed(folder) == []


@pytest.mark.parametrize("in_git", [True, False])
def test_the_ignore_file(tmp_path: Path, in_git: bool) -> None:
    """.orchestrateignore has gitignore's syntax, applies to tracked files, and wins."""
    tree = {
        "a.py": b"",
        "data/x.bin": b"12345",
        "data/keep/y": b"",
        "deep/data/z": b"",
        "w.ckpt": b"",
        "best.ckpt": b"",
        ".orchestrateignore": b"# large\n/data/*\n!/data/keep\n\n"
        b"*.ckpt\n!best.ckpt\n!node_modules/\n",
    }
    folder = git_tree(tmp_path, tree) if in_git else write_tree(tmp_path, tree)
    write_tree(folder, {"node_modules/m.js": b""})

    files = list_tree(folder)

    assert sorted(files.names) == [
        ".orchestrateignore",
        "a.py",
        "best.ckpt",
        "data/keep/y",
        "deep/data/z",
        "node_modules/m.js",
    ]
    assert skipped(files)[".orchestrateignore:2: /data/*"].bytes == 5
    assert skipped(files)[".orchestrateignore:5: *.ckpt"].examples == ("w.ckpt",)


@pytest.mark.parametrize("in_git", [True, False])
def test_names_and_kinds_that_cannot_travel_are_reported(tmp_path: Path, in_git: bool) -> None:
    """Control characters, other encodings, devices and our own folder are skipped with a reason."""
    tree = {"good": b"", "ctrl\x07": b"", ".orchestrate/runs/x": b"12", "line\nbreak": b""}
    folder = git_tree(tmp_path, tree) if in_git else write_tree(tmp_path, tree)
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xe9")).write_bytes(b"")
    if not in_git:
        os.mkfifo(folder / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "sock"))

    files = list_tree(folder)

    assert files.names == ["good"]
    rules = skipped(files)
    assert rules["the name has control characters"].files == 2
    assert rules["the name is not UTF-8"].files == 1
    assert (
        rules["the name .orchestrate is reserved" if in_git else "default: .orchestrate"].bytes == 2
    )
    assert in_git or rules["no regular file"].files == 2
    assert all(str(row).isprintable() for row in files.skipped)


def test_stats_go_with_their_names(tmp_path: Path) -> None:
    """Whichever way the rows were collected, each belongs to its file."""
    folder = git_tree(tmp_path, {f"f{i}": b"x" * i for i in range(20)})
    (folder / "f7").unlink()
    os.mkfifo(folder / "pipe")
    write_tree(folder, {"untracked": b"u" * 99, "inner/x": b"y" * 55})

    files = list_tree(folder)

    sizes = dict(zip(files.names, files.stats[SIZE::WIDTH], strict=True))
    assert sizes == {name: (folder / name).stat().st_size for name in files.names}
    assert files.total_bytes == sum(sizes.values())


def test_large_files_are_warned_about_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file and a large total name the biggest files and what to do."""
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(150_000_000)
    write_tree(tmp_path, {"a": b"x" * 2000, "b": b"x" * 3000})

    (warning,) = list_tree(tmp_path).warnings
    assert "model.bin (150 MB)" in warning
    assert ".orchestrateignore" in warning

    (tmp_path / "model.bin").unlink()
    assert list_tree(tmp_path).warnings == ()
    monkeypatch.setattr(files_module, "LARGE_TOTAL_BYTES", 4000)
    (warning,) = list_tree(tmp_path).warnings
    assert warning.index("b (0 MB)") < warning.index("a (0 MB)")


def test_counting_what_was_skipped_is_bounded(tmp_path: Path) -> None:
    """An enormous folder that stays behind costs little, and the account says it is partial."""
    folder = tmp_path / "node_modules"
    folder.mkdir()
    for i in range(MAX_COUNTED + 100):
        (folder / str(i)).touch()

    (row,) = list_tree(tmp_path).skipped

    assert row.at_least
    assert MAX_COUNTED - 10 < row.files <= MAX_COUNTED
    assert "at least" in str(row)


def test_what_a_hook_left_in_the_environment_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a git hook, GIT_DIR names another repository; the folder's own counts."""
    folder = git_tree(tmp_path / "mine", {"a.py": b""})
    other = git_tree(tmp_path / "other", {"b.py": b""})
    write_tree(other, {".git/info/exclude": b"a.py\n"})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))

    assert listed(folder) == ["a.py"]


def test_a_broken_repository_is_an_error(tmp_path: Path) -> None:
    """If git cannot tell what is ignored, nothing is guessed."""
    folder = git_tree(tmp_path, {"a.py": b""})
    (folder / ".git/index").write_bytes(b"garbage")

    with pytest.raises(UsageError) as caught:
        list_tree(folder)

    assert caught.value.id == "OR-SYNC-004"


def test_without_git_a_repository_is_walked_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without git the code still travels, and the user learns what was not applied."""
    folder = git_tree(tmp_path, {"a.py": b""})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    files = list_tree(folder)

    assert files.names == ["a.py"]
    assert "git is not installed" in files.warnings[0]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(UsageError, match="absent"):
        list_tree(tmp_path / "absent")
