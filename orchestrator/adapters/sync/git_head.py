"""The commit that is checked out around a folder, read from the repository's own files.

A process of git at each launch would take longer than what is asked of it. It is asked only where
the files have another form: a reference to a reference, or a store of references that is no text.
"""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.adapters.sync.git_listing import asked_commit, repository_root

MAX_FILE_BYTES = 4096
MAX_PACKED_BYTES = 64 * 1024 * 1024
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_REFERENCE = re.compile(r"ref: (refs/(?!.*\.\.)[^\s\0]+)")


def head_commit(folder: Path) -> str:
    """Empty where there is no repository, no commit yet, or neither its files nor git tell."""
    try:
        root = repository_root(folder)
        if root is None:
            return ""
        return _read_commit(_git_folder(root)) or asked_commit(folder)
    except (OSError, ValueError):
        return asked_commit(folder)


def _git_folder(root: Path) -> Path:
    """What ``.git`` is, or leads to: the latter in work trees beside the first, and submodules."""
    marker = root / ".git"
    if marker.is_dir():
        return marker
    return root / _text_of(marker).removeprefix("gitdir:").strip()


def _read_commit(git: Path) -> str:
    """Empty where the files do not say it as they do in nearly all repositories."""
    head = _text_of(git / "HEAD")
    if _COMMIT.fullmatch(head):
        return head
    match = _REFERENCE.fullmatch(head)
    if match is None:
        return ""
    shared = git / _text_of(git / "commondir") if (git / "commondir").exists() else git
    loose = shared / match[1]
    if loose.is_file():
        text = _text_of(loose)
        return text if _COMMIT.fullmatch(text) else ""
    return _packed_commit(shared / "packed-refs", match[1])


def _packed_commit(packed: Path, name: str) -> str:
    if not packed.is_file() or packed.stat().st_size > MAX_PACKED_BYTES:
        return ""
    with packed.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            commit, _, reference = line.rstrip("\n").partition(" ")
            if reference == name:
                return commit if _COMMIT.fullmatch(commit) else ""
    return ""


def _text_of(path: Path) -> str:
    """A small file of one line. Raises ``OSError``, and ``ValueError`` if it is larger."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} is no file of one line")
    return content.decode(errors="surrogateescape").strip()
