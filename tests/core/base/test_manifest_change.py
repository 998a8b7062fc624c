"""Changes of manifests: both sides of the wire make the same of them, or the whole travels."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.manifest import (
    Entry,
    FileEntry,
    InvalidManifest,
    Manifest,
    digest_of,
)
from orchestrator.core.base.manifest_change import MAX_CHANGED, change_between, replace_entry
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.code.manifest_change import ManifestChange
from tests.core.base.test_manifest import FILES, LINKS

ENTRIES = st.lists(FILES | LINKS, min_size=1, max_size=8)
X, Y = digest_of(b"x"), digest_of(b"y")
BASE = Manifest.of([FileEntry("a/b", 1, False, X), FileEntry("c", 1, False, X)])


def made(entries: list[Entry]) -> Manifest | None:
    try:
        return Manifest.of(entries)
    except InvalidManifest:
        return None


@given(ENTRIES, ENTRIES)
def test_a_node_makes_the_new_manifest_of_the_old_one(
    before: list[Entry], after: list[Entry]
) -> None:
    """Whatever goes and comes, also names with quotes: those manifests are not changed."""
    old, new = made(before), made([*before[1:], *after])
    if old is None or new is None:
        return
    change = change_between(old.encode(), new.encode())
    if change is None:
        assert b'\\"' in old.encode() + new.encode()
        return
    digest = digest_of(new.encode())
    theirs = ManifestChange(old.encode(), zlib.compress(change.encode()), digest)
    assert theirs.manifest == new.encode()
    assert theirs.added.data == change.manifest.encode()
    assert [blob[:2] for blob in theirs.added.blobs] == list(change.manifest.blobs().items())


@given(ENTRIES, st.integers(0, 7), st.binary(max_size=4))
def test_a_file_with_another_content_replaces_its_entry(
    entries: list[Entry], at: int, content: bytes
) -> None:
    manifest = made(entries)
    if manifest is None or b'\\"' in manifest.encode():
        return
    path = manifest.entries[at % len(manifest.entries)].path
    entry = FileEntry(path, 1 << 31, True, digest_of(content))
    wanted = made([e for e in manifest.entries if e.path != path] + [entry])
    if wanted is not None:
        assert replace_entry(manifest.encode(), entry) == wanted.encode()


def test_what_is_not_there_is_not_replaced() -> None:
    for path in ("a", "b", 'a"'):
        with pytest.raises(ValueError, match=r"quote|not found"):
            replace_entry(BASE.encode(), FileEntry(path, 1, False, X))


def test_much_is_no_change() -> None:
    files = [FileEntry(f"f{n:04}", 1, False, X) for n in range(MAX_CHANGED + 1)]
    assert change_between(BASE.encode(), Manifest.of([*BASE.entries, *files]).encode()) is None


@pytest.mark.parametrize(
    "removed, added, result",
    [
        ([], [[0, ["a", "f", 1, X]]], [["a", "f", 1, X], ["a/b", "f", 1, X], ["c", "f", 1, X]]),
        ([], [[2, ["c/d", "f", 1, X]]], [["a/b", "f", 1, X], ["c", "f", 1, X], ["c/d", "f", 1, X]]),
        ([], [[2, ["c", "l", "a"]]], [["a/b", "f", 1, X], ["c", "f", 1, X], ["c", "l", "a"]]),
        ([1], [[1, ["a/b", "f", 1, Y]]], [["a/b", "f", 1, X], ["a/b", "f", 1, Y]]),
        (
            [],
            [[0, ["../x", "f", 1, X]]],
            [["../x", "f", 1, X], ["a/b", "f", 1, X], ["c", "f", 1, X]],
        ),
        ([], [[2, ["d", "f", 2, X]]], [["a/b", "f", 1, X], ["c", "f", 1, X], ["d", "f", 2, X]]),
        ([7], [], [["a/b", "f", 1, X], ["c", "f", 1, X]]),
        ([-1], [], [["a/b", "f", 1, X]]),
        ([True], [], [["a/b", "f", 1, X]]),
        ([0], [], [["a/b", "f", 1, X], ["c", "f", 1, X]]),
        (None, [], [["a/b", "f", 1, X]]),
        ([], [[0]], []),
        ([], [[2, None]], []),
        ([], [[2, ["d\ud800", "f", 1, X]]], []),
    ],
)
def test_a_node_refuses_hostile_changes(removed: object, added: object, result: object) -> None:
    """As it refuses the manifests that they would lead to, although it does not read these."""
    document = {"version": 1, "entries": result}
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    packed = zlib.compress(json.dumps({"removed": removed, "added": added}).encode())
    with pytest.raises(AgentFault) as caught:
        ManifestChange(BASE.encode(), packed, digest_of(data.encode(errors="replace")))
    assert caught.value.id == "OR-AGENT-MANIFEST"


@pytest.mark.parametrize("packed", [b"", b"x", zlib.compress(b"[]"), zlib.compress(bytes(5 << 20))])
def test_a_node_refuses_what_is_no_change(packed: bytes) -> None:
    with pytest.raises(AgentFault):
        ManifestChange(BASE.encode(), packed, X)
