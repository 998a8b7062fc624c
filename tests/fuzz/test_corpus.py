"""What the fuzzer keeps is read again: nothing but announced refusals, and soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MAX_CORPUS_BYTES = 256 * 1024
LIMIT_S = 2.0
CUTS = 16


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_are_read_or_refused(name: str) -> None:
    """Whole, cut off anywhere, and with a piece from the other end."""
    inputs = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert inputs
    for data in inputs:
        step = max(1, len(data) // CUTS)
        for cut in range(0, len(data) + step, step):
            for changed in (data[:cut], data[cut:] + data[:cut], data[:cut] + data[::-1]):
                began = time.process_time()
                TARGETS[name](changed)
                assert time.process_time() - began < LIMIT_S


def test_the_corpus_is_small_and_all_of_it_is_read() -> None:
    """It grows by what was once a fault, not by what a night of fuzzing makes."""
    files = [path for path in CORPUS.rglob("*") if path.is_file()]

    assert {path.parent.name for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < MAX_CORPUS_BYTES


@pytest.mark.parametrize("name", ["frames", "names", "ignore-rules", "samples"])
def test_a_target_does_not_swallow_faults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that a reader does not announce comes through."""

    def broken(*arguments: object, **options: object) -> object:
        raise ZeroDivisionError

    readers = {"frames": "decode_frame", "names": "expand_nodeset", "ignore-rules": "parse_rules",
               "samples": "sample_set"}  # fmt: skip
    monkeypatch.setattr(f"tests.fuzz.targets.{readers[name]}", broken)

    with pytest.raises(ZeroDivisionError):
        TARGETS[name](b"a\n\nb")
