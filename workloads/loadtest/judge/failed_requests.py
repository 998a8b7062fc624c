"""What failed requests are called: the id of a run that fails because of them, and one line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf

from ..base.records import RequestRecord

REFUSING, GONE, FAILING = "OR-SERVE-007", "OR-SERVE-008", "OR-LOAD-006"
MOST_KINDS = 3
MOMENT_S = 0.1
_MEANINGS = {
    REFUSING: "the server refuses requests as too many",
    GONE: "the server ends answers early, closes connections, or takes none",
}
# "unsent" is the client's own bound, "stopped" no failure.
_IDS = {
    "status 429": REFUSING,
    "status 503": REFUSING,
    "status 529": REFUSING,
    "refused": GONE,
    "connect": GONE,
    "closed": GONE,
    "truncated": GONE,
}
# (kind begins so, detail has this word, what to do)
_HINTS = (
    ("status 4", "stream_options", "--set ask_usage=false leaves stream_options out"),
    ("status 4", "ignore_eos", "--set ignore_eos=false leaves it out"),
    ("status 4", "max_completion_tokens", "--set limit_field=max_completion_tokens"),
    ("status 401", "", "is $OPENAI_API_KEY of the ranks right (--env OPENAI_API_KEY)?"),
    ("status 403", "", "may $OPENAI_API_KEY of the ranks do this (--env OPENAI_API_KEY)?"),
    ("status 404", "", "does it serve this model (--set model=NAME) and this --set api=KIND?"),
    ("status 3", "", "no redirect is followed: give its goal with --set endpoint=URL"),
    ("timeout", "", "--set timeout=SECONDS waits longer"),
)


@dataclass(slots=True)
class FailedRequests:
    """Counts them by kind. Times are seconds from the start of the load."""

    kinds: Counter[str] = field(default_factory=Counter)
    first_s: float = inf
    last_s: float = -inf
    _details: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.kinds.total()

    def add(self, record: RequestRecord) -> None:
        """One that failed."""
        self.kinds[record.failure] += 1
        self._details.setdefault(record.failure, record.detail)
        self.first_s = min(self.first_s, record.scheduled_s)
        self.last_s = max(self.last_s, record.scheduled_s)

    @property
    def id(self) -> str:
        """What most of them are. Raises ``IndexError`` for none."""
        classes: Counter[str] = Counter()
        for kind, count in self.kinds.items():
            classes[_IDS.get(kind, FAILING)] += count
        return classes.most_common(1)[0][0]

    @property
    def text(self) -> str:
        """``12 refused, 3 timeout``: the most frequent kinds."""
        return ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common(MOST_KINDS))

    @property
    def cause(self) -> str:
        """What that means, when it was, and what the first of the most frequent kind said."""
        ((kind, _),) = self.kinds.most_common(1)
        detail = self._details[kind].strip()
        said = f"the first {kind}: {detail}" if detail else ""
        hint = next((what for *when, what in _HINTS if _fits(kind, detail, *when)), "")
        when = f" due {self.first_s:.1f} to {self.last_s:.1f} s after the start"
        what = self.text + (when if self.last_s - self.first_s >= MOMENT_S else "")
        return "; ".join(filter(None, [what, _MEANINGS.get(self.id), said, hint]))


def _fits(kind: str, detail: str, begins: str, word: str) -> bool:
    return kind.startswith(begins) and word in detail
