"""The small Qwen2-architecture base model that lies beside this file: nothing is downloaded.

`scripts/tiny_base make` has made it, and `scripts/tiny_base check` makes it again and compares.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent / "tiny"
SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it


class DamagedBase(RuntimeError):
    """The folder does not hold what was made; the message names the file."""


def verified_folder(folder: Path = FOLDER) -> Path:
    """Return `folder` if each listed file has the digest listed; raises `DamagedBase`."""
    listed = (folder / SUMS).read_text(encoding="ascii").splitlines()
    for digest, name in (line.split("  ", 1) for line in listed):
        file = folder / name
        if not file.is_file() or _sha256(file) != digest:
            raise DamagedBase(
                f"the base model is damaged: {file} does not have the SHA-256 that {SUMS} lists; "
                "restore the file, or pass another --model"
            )
    return folder


def sums_of(folder: Path) -> str:
    """One line a file: its SHA-256 and its name, in the order of the names."""
    files = sorted(file for file in folder.iterdir() if file.name != SUMS)
    return "".join(f"{_sha256(file)}  {file.name}\n" for file in files)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
