"""What the nodes have told of their rounds so far, rebuilt from what is on disk at any time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.outcome import has_succeeded
from orchestrator.core.run.state import RunState
from orchestrator.core.sharing.rounds import Ended, Joined, Offered, Pace, Part
from orchestrator.engine.sharing.rank_exchange import ExchangeReader, RankRecord
from orchestrator.parsing.replies.round_records import parse_told

MAX_COMPLAINTS = 20


@dataclass(slots=True)
class RoundReports:
    """Everything that counts, by node; of a round's parts the first one."""

    joined: dict[str, Joined] = field(default_factory=dict)
    offered: dict[str, Offered] = field(default_factory=dict)
    parts: dict[int, dict[str, Part]] = field(default_factory=dict)
    paces: dict[str, Pace] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)

    def take(self, node: str, said: Joined | Offered | Part | Pace | Ended) -> None:
        match said:
            case Joined():
                self.joined.setdefault(node, said)
            case Offered():
                self.offered.setdefault(node, said)
            case Part():
                self.parts.setdefault(said.round, {}).setdefault(node, said)
                self._steady(node, said.pace)
            case Pace():
                self._steady(node, said)
            case Ended():
                self.ended.setdefault(node, said)

    def _steady(self, node: str, pace: Pace) -> None:
        steps = self.joined[node].terms.round_steps if node in self.joined else 1
        self.paces[node] = pace.after(self.paces.get(node), steps)


class RoundInbox:
    """Reads what the first rank of each node tells in the present attempt."""

    def __init__(
        self,
        reader: ExchangeReader,
        attempt: int,
        speakers: Mapping[str, int],
        note: Callable[[str], None],
    ) -> None:
        self.told = RoundReports()
        self._reader = reader
        self._attempt = attempt
        self._speakers = speakers
        self._note = note
        self._complaints = 0

    def listen(self) -> RoundReports:
        """All that was told by now. Blocks: reads files."""
        for heard in self._reader.read():
            if heard.attempt == self._attempt and self._speakers.get(heard.node) == heard.rank:
                self._hear(heard)
        return self.told

    def forget(self, number: int) -> None:
        """A round that is closed: nothing of it is asked for any more."""
        for old in [known for known in self.told.parts if known <= number]:
            del self.told.parts[old]

    def _hear(self, heard: RankRecord) -> None:
        said = parse_told(heard.line)
        if not isinstance(said, str):
            self.told.take(heard.node, said)
            return
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            self._note(f"{heard.node} told {said}")


def living(state: RunState) -> list[str]:
    """The nodes of the plan that still work, in rank order."""
    failed = {e.node for e in state.endings if not has_succeeded(e.outcome)}
    return [
        name
        for name, node in state.planned()
        if not (node.lost or node.problem or node.concluded or node.halting or name in failed)
    ]
