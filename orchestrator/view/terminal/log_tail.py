"""The log files of a run on disk, read once from the beginning and followed while they grow."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.adapters.store.layout import LogFile, RunFolder
from orchestrator.view.terminal.log_lines import Source, source_of

PORTION_BYTES = 256 * 1024

Feed = Callable[[str, str, bytes], None]


class LogTail:
    """Remembers how far each file was read, so that every byte is passed on exactly once."""

    def __init__(
        self, folder: RunFolder, wanted: Callable[[Source], bool] = lambda _: True
    ) -> None:
        self._folder = folder
        self._wanted = wanted
        self._offsets: dict[LogFile, int] = {}

    def read(self, feed: Feed) -> bool:
        """Pass a portion of what is new in each file to ``feed``; False when nothing was."""
        anything = False
        for log in self._files():
            anything |= self._read_portion(log, feed)
        return anything

    def read_in_turn(self, feed: Feed) -> None:
        """All of the first file, then all of the next, up to their present ends."""
        for log in self._files():
            while self._read_portion(log, feed):
                pass

    def _read_portion(self, log: LogFile, feed: Feed) -> bool:
        offset = self._offsets.get(log, 0)
        try:
            with self._folder.log(log.node, log.file, log.attempt).open("rb") as stream:
                stream.seek(offset)
                chunk = stream.read(PORTION_BYTES)
        except FileNotFoundError:
            return False
        self._offsets[log] = offset + len(chunk)
        if chunk:
            feed(log.node, log.file, chunk)
        return bool(chunk)

    def _files(self) -> list[LogFile]:
        """Attempt by attempt, launchers first, then ranks by number."""
        found = [
            (log.attempt, source.rank if source.rank is not None else -1, log)
            for log in self._folder.log_files()
            if (source := source_of(log.node, log.file)) is not None and self._wanted(source)
        ]
        return [log for _, _, log in sorted(found)]
