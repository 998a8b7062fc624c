"""Drives one target with atheris, which prefers inputs that reach code not reached before."""

from __future__ import annotations

import sys

import atheris

from fuzz_lib.driving import LIMIT_S, MAX_INPUT_BYTES, Counted, arguments

# Counting what is reached slows the readers down, but not what they call in C.
COUNTED = 4.0

with atheris.instrument_imports(include=["orchestrator", "orchestrate_kit"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, seconds, faults, seeds, grown = arguments()
    counted = Counted(TARGETS[name], fault_folder=faults, limit_s=COUNTED * LIMIT_S)
    options = [
        f"-max_total_time={seconds:.0f}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={10 * LIMIT_S:.0f}",
        "-rss_limit_mb=1536",
        f"-artifact_prefix={faults}/",
        "-print_final_stats=1",
    ]
    folders = [str(grown), *([str(seeds)] if seeds.is_dir() else [])]
    atheris.Setup([sys.argv[0], *options, *folders], counted)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
