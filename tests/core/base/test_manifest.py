"""Manifests: one encoding for the same code, and no path that leaves the snapshot."""

from __future__ import annotations

import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.manifest import (
    MAX_PART_BYTES,
    MAX_PATH_BYTES,
    Entry,
    FileEntry,
    InvalidManifest,
    LinkEntry,
    Manifest,
    compare_manifests,
    digest_of,
    path_fault,
    target_fault,
)

NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=8
).filter(lambda name: name not in {".", "..", ".orchestrate"})
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
FEW_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
FILES = st.builds(
    FileEntry,
    path=PATHS,
    size=st.integers(0, 1 << 30),
    executable=st.booleans(),
    digest=st.binary(max_size=4).map(digest_of),
)
LINKS = st.builds(LinkEntry, path=PATHS, target=NAMES)

UNSAFE_PATHS = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../x",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\x9bb",
    "a\ud800b",
    "x" * (MAX_PART_BYTES + 1),
    "é" * (MAX_PART_BYTES // 2 + 1),
    "a/" * (MAX_PATH_BYTES // 2) + "b",
    ".orchestrate",
    ".orchestrate/manifest",
    ".orchestrate/kit",
    ".orchestrate/kit/../manifest",
]
SAFE_PATHS = ["a", "a b", "...", "..a", "a/.b", ".orchestrate/kit/k.py", ".orchestrated", "ü/名前"]
UNSAFE_TARGETS = [
    ("a", ""),
    ("a", "/etc/passwd"),
    ("a", ".."),
    ("a", "../x"),
    ("d/a", "../.."),
    ("d/a", "../../x"),
    ("a", "b/../../x"),
    ("a", "b/../c"),
    ("a", "b/.."),
    ("a", "b//c"),
    ("a", "b\nc"),
    ("a", "b/"),
]
SAFE_TARGETS = [("a", "b"), ("a", "."), ("d/a", ".."), ("d/a", "../b"), ("d/e/a", "../../b/c")]


def manifest_of(entries: list[Entry]) -> Manifest | None:
    try:
        return Manifest.of(entries)
    except InvalidManifest:
        return None


def a_file(path: str, content: bytes = b"", *, executable: bool = False) -> FileEntry:
    return FileEntry(path, len(content), executable, digest_of(content))


@given(st.lists(FILES | LINKS, max_size=8), st.randoms(use_true_random=False))
def test_encoding_is_canonical(entries: list[Entry], order: random.Random) -> None:
    """The order in which entries are found changes neither bytes nor digest; decoding inverts."""
    manifest = manifest_of(entries)
    if manifest is None:
        return
    order.shuffle(entries)

    again = Manifest.of(entries)

    assert again.encode() == manifest.encode()
    assert Manifest.decode(manifest.encode()) == manifest


@given(st.lists(FILES | LINKS, max_size=6))
def test_an_accepted_manifest_stays_below_its_root(entries: list[Entry]) -> None:
    """Whatever is accepted, no path is an ancestor of another, and none leaves the root."""
    manifest = manifest_of(entries)
    if manifest is None:
        return
    paths = [entry.path for entry in manifest.entries]
    for path in paths:
        assert os.path.normpath(f"/root/{path}") == f"/root/{path}"
        assert not any(other.startswith(f"{path}/") for other in paths)


@pytest.mark.parametrize("path", UNSAFE_PATHS)
def test_unsafe_paths_are_refused(path: str) -> None:
    """Traversal, absolute, control characters, bad encodings, lengths and our own folder."""
    assert path_fault(path)
    with pytest.raises(InvalidManifest):
        Manifest.of([a_file(path)])


@pytest.mark.parametrize("path", SAFE_PATHS)
def test_ordinary_paths_are_accepted(path: str) -> None:
    """Odd but harmless names travel."""
    assert path_fault(path) == ""


@pytest.mark.parametrize("path, target", UNSAFE_TARGETS)
def test_unsafe_links_are_refused(path: str, target: str) -> None:
    """A link may not point outside, nor upwards behind a name."""
    assert target_fault(path, target)


@pytest.mark.parametrize("path, target", SAFE_TARGETS)
def test_links_inside_are_accepted(path: str, target: str) -> None:
    """Relative links within the tree travel."""
    assert target_fault(path, target) == ""


@given(st.dictionaries(FEW_PATHS, st.lists(st.sampled_from(["..", "a", "b"]), min_size=1)))
def test_accepted_links_cannot_leave_even_in_chains(links: dict[str, list[str]]) -> None:
    """Following accepted links by the file system's rules never ends above the root."""
    entries: list[Entry] = [LinkEntry(path, "/".join(parts)) for path, parts in links.items()]
    manifest = manifest_of(entries)
    if manifest is None:
        return
    targets = {
        entry.path: entry.target for entry in manifest.entries if isinstance(entry, LinkEntry)
    }
    for path in targets:
        assert _follows_inside(path, targets)


def _follows_inside(path: str, targets: dict[str, str]) -> bool:
    """Walk ``path`` component by component; at most 200 steps, as loops are harmless."""
    here: list[str] = []
    ahead = path.split("/")
    for _ in range(200):
        if not ahead:
            return True
        part = ahead.pop(0)
        if part == "..":
            if not here:
                return False
            here.pop()
        elif part != ".":
            here.append(part)
            target = targets.get("/".join(here))
            if target is not None:
                here.pop()
                ahead = target.split("/") + ahead
    return True


@pytest.mark.parametrize(
    "entries",
    [
        [a_file("a"), a_file("a")],
        [a_file("a"), a_file("a/b")],
        [LinkEntry("a", "b"), a_file("a/c/d")],
        [a_file("a"), a_file("a-b"), a_file("a/b")],
        [FileEntry("a", -1, False, digest_of(b""))],
        [FileEntry("a", 1 << 41, False, digest_of(b""))],
        [FileEntry("a", 0, False, "0" * 39)],
        [FileEntry("a", 0, False, "../" + "0" * 37)],
    ],
)
def test_contradictions_are_refused(entries: list[Entry]) -> None:
    """Paths twice or below a file or link, sizes and digests out of range."""
    with pytest.raises(InvalidManifest):
        Manifest.of(entries)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"version":1}',
        b'{"version":2,"entries":[]}',
        b'{"version":1,"entries":[[]]}',
        b'{"version":1,"entries":[["a","f",true,"' + b"0" * 40 + b'"]]}',
        b'{"version":1,"entries":[["a","q","b"]]}',
        b'{"version":1,"entries": []}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_other_documents_are_refused(data: bytes) -> None:
    """Neither foreign JSON nor a second spelling of the same manifest is one."""
    with pytest.raises(InvalidManifest):
        Manifest.decode(data)


def test_order_is_that_of_code_points() -> None:
    """Entries are sorted alike on every machine, whatever its locale."""
    manifest = Manifest.of([a_file("b"), a_file("é"), a_file("a/b"), a_file("a-b"), a_file("Z")])

    assert [entry.path for entry in manifest.entries] == ["Z", "a-b", "a/b", "b", "é"]
    assert json.loads(manifest.encode())["version"] == 1


def test_equal_contents_are_one_blob() -> None:
    """A content travels once, at the place of its first path."""
    manifest = Manifest.of([a_file("c", b"x"), a_file("a", b"x"), a_file("b", b"yy")])

    assert manifest.blobs() == {digest_of(b"x"): 1, digest_of(b"yy"): 2}
    assert next(iter(manifest.blobs())) == digest_of(b"x")


def test_diff_names_every_change() -> None:
    """Content, executable bit, target and kind count as changes."""
    old = Manifest.of(
        [
            a_file("same"),
            a_file("content", b"1"),
            a_file("mode"),
            LinkEntry("link", "x"),
            a_file("gone"),
        ]
    )
    new = Manifest.of(
        [
            a_file("same"),
            a_file("content", b"2"),
            a_file("mode", executable=True),
            a_file("link"),
            a_file("new"),
        ]
    )

    difference = compare_manifests(old, new)

    assert difference.added == ("new",)
    assert difference.changed == ("content", "link", "mode")
    assert difference.removed == ("gone",)
