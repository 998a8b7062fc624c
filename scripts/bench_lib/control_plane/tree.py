"""Source trees to sync: made from a seed, so that every run sends the same bytes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench_lib.base.bed import run_tool

SOURCES = "src"
WORDS = 4096
TEXT_BYTES = 1 << 20
# Sizes of source files are about log-normal; most files are small, most bytes in few.
SIGMA = 1.6
BINARY_FROM = 4  # times the mean size: images, data and weights do not compress
FOLDERS_IN_EACH = 12
GIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a tree looks like; bytes are a total."""

    name: str
    files: int
    bytes: int
    sigma: float = SIGMA


def sizes(shape: Shape, rng: random.Random) -> list[int]:
    """Log-normal sizes of at least one byte that add up to about the total."""
    drawn = [rng.lognormvariate(0.0, shape.sigma) for _ in range(shape.files)]
    scale = shape.bytes / math.fsum(drawn)
    return [max(1, round(size * scale)) for size in drawn]


def paths(count: int, rng: random.Random) -> Iterator[PurePosixPath]:
    """Different names, one to four folders deep, about a dozen files in each."""
    folders = [PurePosixPath(SOURCES)]
    while len(folders) * FOLDERS_IN_EACH < count:
        parent = rng.choice(folders)
        if len(parent.parts) < 4:
            folders.append(parent / f"part{len(folders)}")
    for number in range(count):
        yield rng.choice(folders) / f"file{number}.py"


def make_tree(folder: Path, shape: Shape) -> list[Path]:
    """Fill `folder` and make it a git work tree with everything committed; its files."""
    rng = random.Random(shape.name)
    text = _text(rng)
    made = []
    drawn = sizes(shape, rng)
    for path, size in zip(paths(shape.files, rng), drawn, strict=True):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        binary = size > BINARY_FROM * shape.bytes / shape.files
        file.write_bytes(rng.randbytes(size) if binary else _slice(text, size, rng))
        made.append(file)
    _commit(folder)
    return made


def read_all(files: list[Path]) -> None:
    """Bring the contents into the page cache."""
    for file in files:
        file.read_bytes()


def _text(rng: random.Random) -> bytes:
    words = [rng.randbytes(rng.randint(1, 6)).hex() for _ in range(WORDS)]
    return " ".join(rng.choices(words, k=TEXT_BYTES // 7)).encode()


def _slice(text: bytes, size: int, rng: random.Random) -> bytes:
    """`size` bytes of text, starting anywhere, with a first line that no other file has."""
    start = rng.randrange(len(text))
    head = b"# %016x\n" % rng.getrandbits(64)
    body = text[start:] + text * (size // len(text) + 1)
    return (head + body)[:size]


def _commit(folder: Path) -> None:
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for words in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "all"]):
        run_tool(["git", "-C", str(folder), *words], timeout_s=GIT_S)
