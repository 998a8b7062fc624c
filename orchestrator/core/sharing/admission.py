"""Whose outputs count: workers that were started with the same things, and have the same model."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.sharing.sample_protocol import Ready, RecordRead

IDENTITY_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides outputs beside code and samples, such as a model's weights, and which node was
    the first to say so. It must be one and the same for all workers whose outputs count.
    """

    node: str
    identity: str


class Admission:
    """Compares what workers say of themselves with ``configuration``, what they must have been
    started with, and with the first identity that was heard, which ``identity`` is from then on.
    """

    def __init__(self, configuration: str, identity: Identity | None) -> None:
        self.identity = identity
        self._configuration = configuration
        self._fits: dict[tuple[int, str, int], bool] = {}

    def mismatch_of(self, line: RecordRead, record: Ready) -> str:
        """What sets the worker apart from those whose outputs count; empty if nothing does."""
        if self.identity is None and record.configuration == self._configuration:
            self.identity = Identity(line.worker[0], record.identity)
        mismatch = self._compare(record)
        self._fits[line.attempt, *line.worker] = not mismatch
        return mismatch

    def fits(self, line: RecordRead) -> bool:
        """Whether the worker that wrote ``line`` has said what it is, and fits."""
        return self._fits.get((line.attempt, *line.worker), False)

    def _compare(self, record: Ready) -> str:
        first = self.identity
        if record.configuration != self._configuration or first is None:
            return "it has other code, arguments or samples than this run"
        if record.identity == first.identity:
            return ""
        mine, theirs = (s[:IDENTITY_SHOWN] or "none" for s in (record.identity, first.identity))
        return f"its model or what else decides outputs is {mine}, that of {first.node} is {theirs}"
