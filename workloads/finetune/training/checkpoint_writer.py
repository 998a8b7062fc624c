"""Checkpoints beside the training: a copy of the state is taken, and written by another thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import orchestrate_kit as kit

from .checkpoints import prune_checkpoints, save_checkpoint

ENDED_BY_TERM = 128 + signal.SIGTERM


class CheckpointWriter:
    """Writes one checkpoint at a time into `root`; what goes wrong is raised by the next call.

    A copy in pinned memory is taken at the call, so the training may go on at once. Its memory is
    used again for the next.
    """

    def __init__(self, root: Path, training: str, keep: int, device: torch.device) -> None:
        self.newest = 0  # the step of the last one that was begun
        self._root, self._training, self._keep = root, training, keep
        # Of its own, since the usual one may wait for ranks that are gone.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None
        self._pinned: dict[tuple[Any, ...], torch.Tensor] = {}

    def write(self, step: int, state: dict[str, Any], *, own: bool = False) -> None:
        """Returns once the copy is taken, and the checkpoint before it is on disk."""
        self.finish()
        if self._stream is None:
            copied = self._copy(state, ())
        else:
            with torch.cuda.stream(self._stream):
                copied = self._copy(state, ())
        self.newest = step
        self._under_way = self._thread.submit(self._save, step, copied, own)

    def finish(self) -> None:
        """Wait for the disk. Raises what writing raised, such as `OSError` for a full disk."""
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def _save(self, step: int, state: dict[str, Any], own: bool) -> None:
        saved = save_checkpoint(self._root, step, state, self._training, own=own)
        prune_checkpoints(self._root, self._keep)
        kit.checkpoint(saved, step)

    def _copy(self, value: Any, place: tuple[Any, ...]) -> Any:
        """The same with all tensors in memory of the host that nobody changes."""
        if isinstance(value, dict):
            return {key: self._copy(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._copy(item, (*place, index)) for index, item in enumerate(value)]
        if not isinstance(value, torch.Tensor):
            return value
        if value.device.type == "cpu":
            return value.detach().clone()
        kept = self._pinned.get(place)
        if kept is None or kept.shape != value.shape or kept.dtype != value.dtype:
            kept = torch.empty_like(value, device="cpu", pin_memory=True)
            self._pinned[place] = kept
        return kept.copy_(value.detach())


@contextmanager
def saving_on_term(save: Callable[[], None]) -> Iterator[None]:
    """Who is asked to end by SIGTERM saves first, then ends with 143.

    The signal is read by a thread of its own, since the main thread may wait in a collective that
    other ranks have left. It has until the run's grace is over (10 s, `--budget grace=`): a
    checkpoint that was begun too late counts for nothing, and the one before it stays.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def hear() -> None:
        while True:
            numbers = os.read(reader, 64)
            if signal.SIGTERM in numbers:
                break
            if not numbers or 0 in numbers:
                return
        try:
            save()
        finally:
            os._exit(ENDED_BY_TERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=hear, name="saving-on-term", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        signal.signal(signal.SIGTERM, before)
        os.write(writer, b"\0")
        thread.join()
        os.close(reader)
        os.close(writer)
