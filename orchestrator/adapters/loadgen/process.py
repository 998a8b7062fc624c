"""LoadGen's process, from the outside: commands in, what it said since, its end."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.adapters.store.end_of_log import last_line
from orchestrator.core.sharing.load_protocol import GeneratorGone
from orchestrator.parsing.replies.load.loadgen_records import LoadGenRecord, parse_loadgen_record

# By its path: only the process itself can import LoadGen, which not everybody has.
PROGRAM = Path(__file__).with_name("program.py")
# One line holds a whole query, which offline is all samples: some 30 bytes each.
MAX_LINE_BYTES = 256 * 1024 * 1024
MAX_WORDS_BYTES = 4000
EXIT_S = 5.0
ERRORS = "stderr.txt"

Answer = tuple[int, int, bytes]  # id, tokens, what accuracy mode logs


class LoadGenProcess:
    """A running process; ``wake`` is called whenever it said something."""

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path, wake: Callable[[], None]
    ) -> None:
        self._process = process
        self._folder = folder
        self._wake = wake
        self._heard: list[LoadGenRecord | GeneratorGone] = []
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, folder: Path, wake: Callable[[], None]) -> LoadGenProcess:
        """Its files go to ``folder``. Raises ``OSError``."""
        with (folder / ERRORS).open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                str(PROGRAM),
                str(folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the coordinator, which ends it
            )
        return cls(process, folder, wake)

    def send(self, command: dict[str, Any]) -> None:
        """Never waits, and what a process that has ended is sent is lost."""
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(command).encode() + b"\n")

    def tell_begun(self, ids: Sequence[int]) -> None:
        """The outputs of these have begun."""
        self.send({"type": "begun", "ids": list(ids)})

    def tell_answered(self, answers: Sequence[Answer]) -> None:
        """These are answered."""
        told = [(id, tokens, base64.b64encode(data).decode()) for id, tokens, data in answers]
        self.send({"type": "answered", "answers": told})

    def take(self) -> list[LoadGenRecord | GeneratorGone]:
        """What it said since the last call, in order."""
        heard, self._heard = self._heard, []
        return heard

    async def wait(self, within_s: float) -> None:
        """Until it has ended by itself, or that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._process.wait()

    async def close(self) -> None:
        """Have it end, by force if need be; its files stay."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self.wait(EXIT_S)
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            while line := await stream.readline():
                self._heard.append(parse_loadgen_record(line))
                self._wake()
        except ValueError:
            self._heard.append(GeneratorGone(f"it wrote a line of over {MAX_LINE_BYTES} bytes"))
        code = await self._process.wait()
        self._heard.append(GeneratorGone(f"its process ended with {code}{self._last_words()}"))
        self._wake()

    def _last_words(self) -> str:
        last = last_line(self._folder / ERRORS, MAX_WORDS_BYTES)
        return f": {last[:300]}" if last else ""
