"""The log files of a run on disk, read once from the beginning and followed while they grow."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.edges.store.layout import RunFolder
from orchestrator.view.log_lines import Source, source_of

PORTION_BYTES = 256 * 1024

Feed = Callable[[str, str, bytes], None]


class LogTail:
    """Remembers how far each file was read, so that every byte is passed on exactly once."""

    def __init__(
        self, folder: RunFolder, wanted: Callable[[Source], bool] = lambda _: True
    ) -> None:
        self._folder = folder
        self._wanted = wanted
        self._offsets: dict[tuple[str, str], int] = {}

    def read(self, feed: Feed) -> bool:
        """Pass a portion of what is new in each file to ``feed``; False when nothing was."""
        anything = False
        for node, file in self._files():
            anything |= self._read_portion(node, file, feed)
        return anything

    def read_in_turn(self, feed: Feed) -> None:
        """All of the first file, then all of the next, up to their present ends."""
        for node, file in self._files():
            while self._read_portion(node, file, feed):
                pass

    def _read_portion(self, node: str, file: str, feed: Feed) -> bool:
        offset = self._offsets.get((node, file), 0)
        try:
            with self._folder.log(node, file).open("rb") as stream:
                stream.seek(offset)
                chunk = stream.read(PORTION_BYTES)
        except FileNotFoundError:
            return False
        self._offsets[node, file] = offset + len(chunk)
        if chunk:
            feed(node, file, chunk)
        return bool(chunk)

    def _files(self) -> list[tuple[str, str]]:
        """Launchers first, then ranks by number."""
        found = [
            (source.rank if source.rank is not None else -1, node, file)
            for node, file in self._folder.log_files()
            if (source := source_of(node, file)) is not None and self._wanted(source)
        ]
        return [(node, file) for _, node, file in sorted(found)]
