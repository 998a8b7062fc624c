"""Ignore rules mean what git means: git itself is the judge, of examples and of generated rules."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.sync.file_list import list_tree
from orchestrator.adapters.sync.ignore_file import MAX_IGNORE_BYTES, RuleList, parse_rules
from orchestrator.core.base.errors import UsageError
from tests.contracts.sync.trees import git, write_tree

# (rules, files that travel, files that do not)
FACTS = [
    (["*", "!*/", "!*.txt"], "a.txt sub/b.txt sub/deep/c.txt", "a.bin sub/b.bin"),
    (["data/**", "!data/**/", "!data/**/*.txt"], "data/x/y.txt data/t.txt", "data/x/z.bin data/q"),
    (["one", "!one/a.1"], "two/a.1", "one/a.1 one/b"),
    (["one/*", "!one/a.1"], "one/a.1", "one/b one/c/a.1"),
    (["ckpt-[[:digit:]]", "[[:upper:]x]"], "ckpt-a ckpt-10 y", "ckpt-3 Q x d/ckpt-7"),
    (["a[!b]c", "d[^x-z]e"], "abc a/c dye d/e ac", "a1c d1e a-c"),
    ([r"[\-_]x", r"[\]]", r"[[-\]]y"], "\\x ax", "-x _x ] [y \\y ]y"),
    (["[]-]a", "[!]a-]b"], "^a -b ]b ab", "]a -a xb"),
    (["[a-]1", "[-b]2", "[b-a]3"], "c1 a3 -3", "a1 -1 -2 b2 b3"),
    (["[[:alpha:][:digit:]_]k", "[[:nope:]]q"], "-k nq", "ak 7k _k"),
    (["[[:space:]]s", "[[:punct:]]p"], "xs ap 1p", ".p ~p"),
    (["foo/", "!foo/keep"], "foo sub/foo", ""),
    (["build/"], "build src/build", ""),
    (["/top", "mid/leaf"], "d/top x/mid/leaf", "top mid/leaf"),
    (["**/cache"], "d/cached", "cache d/cache d/e/cache/f"),
    (["logs/**"], "logs2/a d/logs/x", "logs/a logs/b/c"),
    (["a/**/b"], "a/bc xa/b", "a/b a/x/b a/x/y/b"),
    (["pre**/z"], "z d/prez", "prez pre/z prefix/z pre/a/b/z"),
    (["x**y"], "x/y d/x/y", "xy xaay d/xby"),
    (["a?c"], "ac abbc a/c", "abc axc"),
    (["*.tar.*"], "a.tar", "a.tar.gz d/b.tar.xz"),
    ([r"\#note", r"\!loud", "# remark", ""], "remark", "#note !loud"),
    ([r"star\*", r"q\?"], "stars q1", "star* q?"),
    (["*.log", "!keep.log", "*.log"], "a.txt", "keep.log b.log"),
    (["*.log", "!keep.log"], "keep.log d/keep.log", "b.log"),
    (["trail   ", r"held\ "], "held", "trail"),
    (["back\\", "!", "[open", "a[", "//", "/"], "back\\ [open a[ ! x", ""),
    (["é", "r?sum"], "résum e", "é d/é resum"),
    (["A", "b"], "a B", "A b"),
    (["d/*/f"], "d/f d/a/b/f", "d/a/f"),
    (["d/*.c", "/*.h"], "d/e/x.c e.c d/x.h", "d/x.c x.h"),
]


@pytest.mark.processes
@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: str(fact[0]))
@pytest.mark.parametrize("name", [".gitignore", ".orchestrateignore"])
@pytest.mark.parametrize("in_git", [True, False])
def test_facts(tmp_path: Path, fact: tuple[list[str], str, str], name: str, in_git: bool) -> None:
    """One meaning for one file of rules, whatever it is called and whoever lists the files."""
    rules = fact[0]
    wanted, unwanted = (set(names.split()) for names in fact[1:])
    for path in sorted(wanted | unwanted):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / name).write_text("\n".join(rules) + "\n")
    if in_git:
        git(tmp_path, "init", "--quiet")

    assert set(list_tree(tmp_path).names) - {name} == wanted


@pytest.mark.processes
@pytest.mark.parametrize("name", [".gitignore", ".orchestrateignore"])
@pytest.mark.parametrize("in_git", [True, False])
def test_a_blank_that_a_backslash_protects(tmp_path: Path, name: str, in_git: bool) -> None:
    """Blanks at the end of a line go; a protected one is part of the name. So is every tab."""
    write_tree(tmp_path, {"x ": b"", "x": b"", "y": b"", name: b"x\\  \ny  \nx\t\n"})
    if in_git:
        git(tmp_path, "init", "--quiet")

    assert set(list_tree(tmp_path).names) == {"x", name}


@pytest.mark.processes
@pytest.mark.parametrize("name", [".gitignore", ".orchestrateignore"])
def test_a_file_from_an_editor_on_windows(tmp_path: Path, name: str) -> None:
    """A byte order mark and carriage returns are no part of the names."""
    write_tree(tmp_path, {"a": b"", "b": b"", "c": b"", name: b"\xef\xbb\xbfa\r\nb\r\n"})

    assert set(list_tree(tmp_path).names) == {"c", name}


ATOMS = [
    *"a a b * * ** ? / / **/ /** [ab] [!a] [^b] [a-c] [ ] \\ - [[:alpha:]] [[:digit:]_] é".split(),
    *"[[:upper:]x-z] []a] [!]-] [\\]] [a\\-c] [--/] ! # . foo [[:nope:]] [[::]] [z-a] ***".split(),
    *"^ \\/ \\* [a-] [[-\\]] [,-.] [[:space:]] [[:punct:]]".split(),
    *[" ", "\\ ", "\r", "\t"],
]
PARTS = ["a b", "x ", *"a b ab aab a.c [a a] - \\ A 1 é !a #a".split()]
PATTERNS = st.tuples(
    st.sampled_from(["", "", "", "!", "/", "!/"]),
    st.lists(st.sampled_from(ATOMS), min_size=1, max_size=6),
    st.sampled_from(["", "", "", "/"]),
).map(lambda parts: parts[0] + "".join(parts[1]) + parts[2])
FILES = st.lists(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join), min_size=2, max_size=6
)
CASES = st.tuples(st.lists(PATTERNS, min_size=1, max_size=4), FILES)
PER_PROCESS, PROCESSES = 30, 12


@pytest.mark.processes
@given(st.lists(CASES, min_size=PER_PROCESS, max_size=PER_PROCESS))
@settings(max_examples=PROCESSES, deadline=None, suppress_health_check=list(HealthCheck))
def test_generated_rules_mean_what_git_says(cases: list[tuple[list[str], list[str]]]) -> None:
    """The same line decides on each path, and the same files are listed."""
    with _outside_git() as root:
        tree = root / "tree"
        for number, (rules, files) in enumerate(cases):
            _plant(tree / str(number), files, ".gitignore", rules)
        paths = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))

        assert _deciding_lines(tree, paths) == _git_check_ignore(root, paths)
        assert sorted(list_tree(tree).names) == _git_others(root)


@pytest.mark.processes
@given(st.lists(CASES, min_size=PER_PROCESS, max_size=PER_PROCESS))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_ignore_file_reads_generated_rules_alike(
    cases: list[tuple[list[str], list[str]]],
) -> None:
    """``.orchestrateignore`` at the root of a tree means what ``.gitignore`` means there."""
    with _outside_git() as root:
        for number, (rules, files) in enumerate(cases):
            ours = root / "ours" / str(number)
            _plant(root / "tree" / str(number), files, ".gitignore", rules)
            _plant(ours, files, ".orchestrateignore", rules)

            theirs = {str(Path(str(number), name)) for name in _without_ignore_file(ours)}
            cases[number] = (sorted(theirs), [])

        listed = {name for name in _git_others(root) if not name.endswith(".gitignore")}
        assert listed == {name for names, _ in cases for name in names}


@pytest.mark.processes
@given(st.lists(PATTERNS, max_size=3), st.lists(PATTERNS, max_size=3), FILES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_ignore_file_wins_as_rules_of_the_command_line_do(
    stronger: list[str], weaker: list[str], files: list[str]
) -> None:
    """It stands above ``.gitignore`` as git's own ``--exclude`` does."""
    # A path that is spelled out reaches into ignored folders, which git has nothing like.
    stronger = [rule for rule in stronger if not (rule.startswith("!") and "/" in rule[1:-1])]
    stronger = [rule for rule in stronger if rule.strip() and rule[0] != "#"]
    # What cannot be shown is shown as "?", which would mean something.
    stronger = [rule for rule in stronger if rule.isprintable()]
    with _outside_git() as root:
        _plant(root / "tree", files, ".gitignore", weaker)
        text = "\n".join(stronger)
        (root / "tree/.orchestrateignore").write_bytes(text.encode())
        excludes = [rule.text for rule in parse_rules(text.encode(), "")]

        assert sorted(list_tree(root / "tree").names) == _git_others(root, *excludes)


@contextmanager
def _outside_git() -> Iterator[Path]:
    """A folder with a ``tree`` whose repository lies beside it; no git is found meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        git(root, "init", "--quiet", "--bare", "git")
        (root / "tree").mkdir()
        with mock.patch.dict(os.environ, PATH="/nonexistent"):
            yield root


def _plant(folder: Path, files: list[str], name: str, rules: list[str]) -> None:
    """As many of ``files`` as fit beside each other, and the rules."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("\n".join(rules).encode())
    for file in files:
        path = folder / file
        if not path.exists() and not any(above.is_file() for above in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def _git(root: Path, *arguments: str, data: str = "") -> list[str]:
    environment = {"PATH": os.defpath, "GIT_CONFIG_GLOBAL": os.devnull, "HOME": "/nonexistent"}
    done = subprocess.run(
        ["git", f"--git-dir={root}/git", f"--work-tree={root}/tree", *arguments],
        cwd=root / "tree",
        input=data.encode(),
        capture_output=True,
        timeout=60,
        env=environment | {"GIT_CONFIG_SYSTEM": os.devnull},
        check=False,
    )
    assert not done.stderr
    return done.stdout.decode().split("\0")[:-1]


def _git_check_ignore(root: Path, paths: list[str]) -> dict[str, int]:
    """path -> the line that decides on it, 0 if none does."""
    options = ("check-ignore", "-v", "-n", "-z", "--no-index", "--stdin")
    fields = _git(root, *options, data="\0".join(paths))
    lines = zip(fields[3::4], fields[1::4], strict=True)
    return {path: int(line or "0") for path, line in lines}


def _git_others(root: Path, *excludes: str) -> list[str]:
    stronger = [f"--exclude={rule}" for rule in excludes]
    return sorted(_git(root, "ls-files", "-z", "--others", "--exclude-standard", *stronger))


def _deciding_lines(tree: Path, paths: list[str]) -> dict[str, int]:
    """The same by our own reading of the trees' ignore files."""
    found: dict[str, int] = {}
    left_out: dict[str, int] = {}
    lists = {
        case.name: RuleList(parse_rules((case / ".gitignore").read_bytes(), ""), f"{case.name}/")
        for case in tree.iterdir()
    }
    for path in paths:
        above, _, _ = path.rpartition("/")
        line = left_out.get(above, 0)
        if not line and above:
            rules = lists[path.partition("/")[0]]
            rule = rules.last_match(path, is_folder=(tree / path).is_dir())
            line = rule.line if rule else 0
            left_out[path] = line if rule and not rule.negative else 0
        elif line:
            left_out[path] = line
        found[path] = line
    return found


def _without_ignore_file(folder: Path) -> list[str]:
    return [name for name in list_tree(folder).names if name != ".orchestrateignore"]


@pytest.mark.parametrize(
    "rule, name",
    [
        ("*a" * 40 + "b", "a" * 250),
        ("**/a" * 40 + "b", "/".join(["a"] * 120)),
        ("*" + "[ab]*" * 60 + "c", "ab" * 120),
        ("/" + "*/" * 60 + "**/" * 30 + "x", "/".join(["y"] * 200)),
        ("a" + "**/b" * 30, "a" + "/b" * 29 + "/c" * 90),
    ],
    ids=lambda value: value[:12],
)
def test_no_rule_takes_long(rule: str, name: str) -> None:
    """What made matchers try for hours is answered at once."""
    rules = RuleList(parse_rules(rule.encode(), ""))
    began = time.process_time()

    assert rules.last_match(name, is_folder=False) is None

    assert time.process_time() - began < 1


def test_what_is_no_ignore_file_is_refused(tmp_path: Path) -> None:
    """Rules are never read in part: neither a huge file nor a huge line is cut."""
    write_tree(tmp_path, {".orchestrateignore": b"a\n" * MAX_IGNORE_BYTES})
    with pytest.raises(UsageError, match="larger than"):
        list_tree(tmp_path)
    write_tree(tmp_path, {".orchestrateignore": b"a\n" + b"b" * 5000})
    with pytest.raises(UsageError, match=r"longer than.*") as caught:
        list_tree(tmp_path)
    assert caught.value.where == ".orchestrateignore:2"
