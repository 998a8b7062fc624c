"""Drives one target with hypothesis: bytes, texts, and seeds with pieces exchanged."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz_lib.driving import MAX_INPUT_BYTES, Counted, arguments, bound_memory
from tests.fuzz.targets import TARGETS

MANY = 10_000_000
MOST_GROWN = 200


def inputs(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Anything; and seeds in which pieces are taken out, doubled, or replaced."""
    anything = st.binary(max_size=MAX_INPUT_BYTES) | st.text(max_size=2000).map(
        lambda text: text.encode(errors="surrogatepass")
    )
    if not seeds:
        return anything
    place = st.integers(0, max(map(len, seeds)))
    change = st.tuples(place, place, st.binary(max_size=8) | st.sampled_from(seeds))
    changed = st.tuples(st.sampled_from(seeds), st.lists(change, max_size=6)).map(_changed)
    return anything | changed


def _changed(drawn: tuple[bytes, list[tuple[int, int, bytes]]]) -> bytes:
    data, changes = drawn
    for start, end, piece in changes:
        data = data[:start] + piece + data[end:]
    return data[:MAX_INPUT_BYTES]


def main() -> None:
    name, seconds, faults, folder, grown = arguments()
    bound_memory()
    counted = Counted(TARGETS[name], fault_folder=faults)
    kept = [*sorted(folder.glob("*")), *sorted(grown.glob("*"))[:MOST_GROWN]]
    seeds = [path.read_bytes() for path in kept]
    end = time.monotonic() + seconds

    @settings(
        max_examples=MANY, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(inputs(seeds))
    def drive(data: bytes) -> None:
        if time.monotonic() > end:
            raise KeyboardInterrupt
        counted(data)

    try:
        drive()
    except KeyboardInterrupt:
        pass
    finally:
        counted.tell()


if __name__ == "__main__":
    main()
