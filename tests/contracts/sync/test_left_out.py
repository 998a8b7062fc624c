"""What does not travel unasked, how it is taken back, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from orchestrator.adapters.sync.file_list import FileList, list_tree
from orchestrator.adapters.sync.ignore_file import line_for
from orchestrator.core.base.errors import UsageError
from tests.contracts.sync.trees import git, git_tree, write_tree

pytestmark = pytest.mark.processes

Make = Callable[[Path, Mapping[str, bytes]], Path]


def untracked(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A repository in which nothing is tracked."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "--quiet")
    return write_tree(folder, files)


def rules_of(files: FileList) -> set[str]:
    return {row.rule for row in files.skipped}


def travels(folder: Path) -> set[str]:
    return set(list_tree(folder).names) - {".gitignore", ".orchestrateignore"}


EVERYWHERE = pytest.mark.parametrize("make", [write_tree, untracked])


@EVERYWHERE
@pytest.mark.parametrize(
    "path",
    [
        ".ssh/id_lab",
        "sub/.aws/credentials",
        ".gnupg/private-keys-v1.d/k",
        ".netrc",
        ".kube/config",
        ".config/gcloud/credentials.db",
        ".docker/config.json",
        ".cache/huggingface/token",
        "deploy/id_ed25519",
        ".npmrc",
        "ansible/.vault_pass",
        ".git-credentials",
        ".bash_history",
    ],
)
def test_private_files_stay_behind(tmp_path: Path, make: Make, path: str) -> None:
    """Keys, tokens and passwords do not travel; that they do not is in the account."""
    folder = make(tmp_path / "p", {"a.py": b"", path: b"secret", ".config/app.toml": b""})

    files = list_tree(folder)

    assert set(files.names) == {"a.py", ".config/app.toml"}
    (row,) = files.skipped
    assert row.rule.startswith("default, private: ")
    assert row.files == 1


def test_a_private_file_that_git_tracks_travels_with_a_warning(tmp_path: Path) -> None:
    """Whoever committed it meant it; the name is said all the same."""
    folder = git_tree(tmp_path / "p", {"a.py": b"", "fixtures/.netrc": b"", ".ssh/config": b""})

    files = list_tree(folder)

    assert set(files.names) == {"a.py", "fixtures/.netrc", ".ssh/config"}
    (warning,) = files.warnings
    assert ".ssh/config, fixtures/.netrc" in warning


@EVERYWHERE
def test_settings_that_mostly_hold_keys_travel_with_a_warning(tmp_path: Path, make: Make) -> None:
    """Programs read them beside themselves; a line of the ignore file keeps them here."""
    files = {"a.py": b"", ".env": b"", "app/.env.local": b"", ".env.example": b"", "x.envy": b""}
    folder = make(tmp_path / "p", files)

    (warning,) = list_tree(folder).warnings
    assert "travel: .env, app/.env.local;" in warning

    write_tree(folder, {".orchestrateignore": b".env*\n!.env.example\n"})
    assert list_tree(folder).warnings == ()


def test_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    """A model that was not pulled is a text of three lines."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"
    there = b"x" * len(pointer)
    files = {".gitattributes": b"*.bin filter=lfs\n", "a/m.bin": pointer, "n.bin": there}
    folder = git_tree(tmp_path / "p", files)

    (warning,) = list_tree(folder).warnings
    assert "git lfs pull brings: a/m.bin" in warning


@EVERYWHERE
@pytest.mark.parametrize("marker", ["pyvenv.cfg", "conda-meta/history"])
def test_a_python_environment_stays_behind_whatever_its_name(
    tmp_path: Path, make: Make, marker: str
) -> None:
    """Its links lead out of the tree, and on a node it would not work."""
    folder = make(tmp_path / "p", {"a.py": b"", f"tools/env9/{marker}": b"", "tools/b.py": b""})
    write_tree(folder, {"tools/env9/lib/x.py": b""})
    (folder / "tools/env9/bin").mkdir()
    (folder / "tools/env9/bin/python").symlink_to("/usr/bin/python3")

    assert travels(folder) == {"a.py", "tools/b.py"}
    assert rules_of(list_tree(folder)) == {f"default: a Python environment ({marker})"}

    write_tree(folder, {".orchestrateignore": b"!/tools/env9/\n/tools/env9/bin/\n"})
    assert travels(folder) == {"a.py", "tools/b.py", "tools/env9/lib/x.py", f"tools/env9/{marker}"}


@EVERYWHERE
@pytest.mark.parametrize(
    "lines, back",
    [
        (b"!out/job.py", {"out/job.py"}),
        (b"!/out/job.py", {"out/job.py"}),
        (b"!out/*.py", {"out/job.py"}),
        (b"!out/**/*.py", {"out/job.py", "out/deep/er.py"}),
        (b"!out/deep/", {"out/deep/er.py"}),
        (b"!out/", {"out/job.py", "out/deep/er.py", "out/x"}),
        (b"!out/\nout/x", {"out/job.py", "out/deep/er.py"}),
        (b"!b.log", {"b.log"}),
        (b"!*.log", {"b.log", "sub/c.log"}),
        (b"!.venv/lib/v.py", {".venv/lib/v.py"}),
        (b"!.venv/", {".venv/lib/v.py"}),
        # These would send what nobody meant: a name alone, or a wildcard, opens no folder that
        # another file of rules leaves out, nor does it take back a default.
        (b"!job.py", set()),
        (b"!*.py", set()),
        (b"!**/er.py", set()),
        (b"!*/", {"out/job.py", "out/deep/er.py", "out/x"}),
        (b"out/\n!out/job.py", set()),
    ],
)
def test_the_ignore_file_takes_back_what_git_ignores(
    tmp_path: Path, make: Make, lines: bytes, back: set[str]
) -> None:
    """It is stronger than .gitignore and the defaults, with and without git."""
    tree = dict.fromkeys(
        "a.py out/job.py out/deep/er.py out/x out/l.log b.log sub/c.log".split(), b""
    )
    tree |= {".venv/lib/v.py": b"", ".gitignore": b"out/\n*.log\n", ".orchestrateignore": lines}

    assert travels(make(tmp_path / "p", tree)) == {"a.py"} | back


def test_rules_above_the_folder_hold_in_what_is_taken_back(tmp_path: Path) -> None:
    """Below a repository's root, in a folder that came back, and from the repository's own file."""
    root = git_tree(tmp_path / "r", {".gitignore": b"*.tmp\nout/\n", "p/a.py": b""})
    write_tree(root, {"p/out/b.py": b"", "p/out/c.tmp": b"", "p/out/d/e.bin": b"", "p/out/f": b""})
    write_tree(root, {".git/info/exclude": b"*.bin\n", "p/.orchestrateignore": b"!out/\n"})

    files = list_tree(root / "p")

    assert set(files.names) == {".orchestrateignore", "a.py", "out/b.py", "out/f"}
    assert {row.rule.partition(": ")[2] for row in files.skipped} == {"*.tmp", "*.bin"}


@EVERYWHERE
def test_lines_without_effect_are_said(tmp_path: Path, make: Make) -> None:
    """A line that matches nothing, or that cannot take back what it names, is not passed over."""
    folder = make(
        tmp_path / "p",
        {"one/a.1": b"", "b": b"", ".orchestrateignore": b"one\n!one/a.1\n!b\nopen[\nback\\\n!\n"},
    )

    warnings = "\n".join(list_tree(folder).warnings)

    for words in [
        ".orchestrateignore:2: !one/a.1 has no effect: one/a.1 is left out by .orchestrateignore:1",
        ".orchestrateignore:4: open[ can match nothing",
        ".orchestrateignore:5: back\\ can match nothing",
        ".orchestrateignore:6: ! can match nothing",
    ]:
        assert words in warnings
    assert len(warnings.splitlines()) == 4


def test_gitignore_holds_without_a_repository(tmp_path: Path) -> None:
    """An unpacked archive of a repository keeps back what its ignore files name, at every level."""
    write_tree(
        tmp_path,
        {
            ".gitignore": b"*.env\n/data\n",
            "sub/.gitignore": b"!keep.env\n/x\n",
            "a.env": b"12",
            "data/d": b"",
            "sub/keep.env": b"",
            "sub/x": b"",
            "sub/data": b"",
        },
    )

    files = list_tree(tmp_path)

    assert set(files.names) == {".gitignore", "sub/.gitignore", "sub/keep.env", "sub/data"}
    assert rules_of(files) == {".gitignore:1: *.env", ".gitignore:2: /data", "sub/.gitignore:2: /x"}


def test_an_inner_repository_is_listed_by_git(tmp_path: Path) -> None:
    """Also where the folder around it is none: tracked files travel though a rule names them."""
    write_tree(tmp_path / "p", {"a.py": b""})
    git_tree(tmp_path / "p/lib", {"b.py": b"", "c.log": b""})
    write_tree(tmp_path / "p/lib", {".gitignore": b"*.log\n", "d.log": b""})

    assert travels(tmp_path / "p") == {"a.py", "lib/.gitignore", "lib/b.py", "lib/c.log"}


def _copied_work_tree(folder: Path) -> None:
    write_tree(folder, {".git": b"gitdir: /nonexistent/.git/worktrees/x\n"})


def _without_head(folder: Path) -> None:
    git(folder, "init", "--quiet")
    (folder / ".git/HEAD").unlink()


def _dangling_link(folder: Path) -> None:
    (folder / ".git").symlink_to("/nonexistent/repository")


@pytest.mark.parametrize("damage", [_copied_work_tree, _without_head, _dangling_link])
@pytest.mark.parametrize("below", ["", "src"])
def test_a_repository_that_git_does_not_find_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], below: str
) -> None:
    """Nobody knows which files it tracks, so nothing is guessed, and no secret travels."""
    folder = write_tree(tmp_path / "p", {".gitignore": b"secret.env\n", "src/secret.env": b"T"})
    damage(folder)

    with pytest.raises(UsageError, match="git cannot list") as caught:
        list_tree(folder / below)

    assert caught.value.id == "OR-SYNC-004"
    assert "not a git repository" in caught.value.why


def test_what_git_says_is_in_the_error(tmp_path: Path) -> None:
    """Here, that the file of personal rules is a folder."""
    write_tree(tmp_path, {"a.py": b""})
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "core.excludesFile", str(tmp_path))

    with pytest.raises(UsageError, match="git cannot list") as caught:
        list_tree(tmp_path)

    assert "as an exclude file" in caught.value.why


def test_an_empty_folder_named_git_is_no_repository(tmp_path: Path) -> None:
    """Some tools put one there as a marker; git passes it over, too."""
    (tmp_path / ".git").mkdir()
    write_tree(tmp_path, {"a.py": b"", "b.log": b"", ".gitignore": b"*.log\n"})

    files = list_tree(tmp_path)

    assert set(files.names) == {".gitignore", "a.py"}
    assert files.warnings == ()


def test_without_git_the_rules_of_a_repository_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that lacks git: the ignore files above the folder, and the repository's own."""
    root = git_tree(tmp_path / "r", {"p/a.py": b"", "p/kept.log": b""})
    write_tree(root, {".gitignore": b"*.log\n", ".git/info/exclude": b"*.bin\n"})
    write_tree(root, {"p/b.log": b"", "p/c.bin": b"", "p/q/d.bin": b""})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))

    files = list_tree(root / "p")

    assert files.names == ["a.py"]
    assert rules_of(files) == {"../.gitignore:1: *.log", "../.git/info/exclude:1: *.bin"}
    assert "git is not installed" in files.warnings[0]


def test_an_ignore_file_that_is_a_link(tmp_path: Path) -> None:
    """git reads no .gitignore that is a link; ours may be one, to .dockerignore say."""
    write_tree(tmp_path, {"a": b"", "b": b"", "rules": b"a\n", "more": b"b\n"})
    (tmp_path / ".gitignore").symlink_to("rules")
    (tmp_path / ".orchestrateignore").symlink_to("more")

    assert "a" in list_tree(tmp_path).names
    assert "b" not in list_tree(tmp_path).names


@pytest.mark.parametrize("name", ["job.py", "a [1].py", "wh?t*.py", "back\\slash.py", "end .py"])
def test_the_line_of_the_remedy_takes_any_name_back(tmp_path: Path, name: str) -> None:
    """What the error says to write does what it says."""
    write_tree(tmp_path, {f"out/{name}": b"", ".gitignore": b"out/\n"})
    before = list_tree(tmp_path, needed=(f"out/{name}",))
    assert before.left_out == {f"out/{name}": ".gitignore:1: out/"}

    (tmp_path / ".orchestrateignore").write_text(line_for(f"out/{name}") + "\n")

    after = list_tree(tmp_path, needed=(f"out/{name}",))
    assert f"out/{name}" in after.names
    assert after.left_out == {}


def test_the_home_directory_travels_only_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whatever lies above it."""
    home = write_tree(tmp_path / "home/u", {"train.py": b"", ".ssh/id_lab": b""})
    monkeypatch.setenv("HOME", str(home))

    for folder in (home, tmp_path):
        files = list_tree(folder)
        assert any("the home directory travels" in warning for warning in files.warnings)
        assert [Path(name).name for name in files.names] == ["train.py"]
    assert list_tree(write_tree(home / "project", {"a": b""})).warnings == ()
