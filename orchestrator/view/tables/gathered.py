"""The answers of many nodes to one command: merged where they are equal, or line by line.

What is merged is in the order of the nodes' names, however they came: two outputs can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.nodeset import fold_nodeset, is_name, natural_key
from orchestrator.core.base.outcome import Exited, Outcome, Signalled, TimedOut, describe_outcome
from orchestrator.parsing.replies.display_text import CUT_MARK, LineDecoder
from orchestrator.view.terminal.terminal import LineWriter
from orchestrator.view.terminal.text import brief_text

KEPT_BYTES = 4 * 1024 * 1024
MAX_CODE = 255  # SSH carries 32 bits, a process's own code has 8: 256 must not come out as 0
RULE = "-" * 15


class Endings:
    """How the nodes ended, as lines on stderr and as one exit code."""

    def __init__(self, err: LineWriter) -> None:
        self._err = err
        self._by_outcome: dict[str, list[str]] = {}
        self._highest = 0
        self._lost = False
        self._timed_out = False

    def ended(self, node: str, outcome: Outcome) -> None:
        match outcome:
            case Exited(code=code):
                self._highest = max(self._highest, min(code, MAX_CODE))
            case Signalled(signal=number):
                self._highest = max(self._highest, 128 + number)
            case TimedOut():
                self._timed_out = True
            case _:
                self._lost = True
        if outcome != Exited(0):
            self._note(node, describe_outcome(outcome))

    def unreachable(self, node: str, why: str) -> None:
        self._lost = True
        self._note(node, f"not reached: {why}")

    def not_started(self, node: str, outcome: Outcome | None, why: str) -> None:
        """Never a success, whatever the login shell exited with."""
        match outcome:
            case Exited(code=code) if code:
                self._highest = max(self._highest, min(code, MAX_CODE))
            case _:
                self._lost = True
        self._note(node, why)

    @property
    def told(self) -> dict[str, list[str]]:
        """The nodes that did not end well, by what is said of them, in the order of their names."""
        alike = sorted(self._by_outcome.items(), key=_first_name)
        return {what: sorted(nodes, key=natural_key) for what, nodes in alike}

    def finish(self) -> int:
        """Tell what did not end well; the exit code."""
        for what, nodes in self.told.items():
            self._err.line(f"orchestrate: {fold_names(nodes)}: {what}")
        if self._lost:
            return int(ExitCode.PREFLIGHT)
        return int(ExitCode.TIMED_OUT) if self._timed_out else self._highest

    def _note(self, node: str, what: str) -> None:
        self._by_outcome.setdefault(brief_text(what, 400), []).append(node)


class Gathered(Endings):
    """Keeps each node's output and shows equal ones once, below the folded names."""

    def __init__(self, out: LineWriter, err: LineWriter) -> None:
        super().__init__(err)
        self._out = out
        self._kept: dict[str, dict[str, bytearray]] = {"out": {}, "err": {}}

    def output(self, node: str, stream: str, chunk: bytes) -> None:
        kept = self._kept[stream].setdefault(node, bytearray())
        kept += chunk[: KEPT_BYTES + 1 - len(kept)]

    def finish(self) -> int:
        self._show(self._out, self._kept["out"])
        self._show(self._err, self._kept["err"])
        return super().finish()

    def _show(self, writer: LineWriter, kept: dict[str, bytearray]) -> None:
        alike: dict[bytes, list[str]] = {}
        for node, content in kept.items():
            alike.setdefault(_without_last_break(content), []).append(node)
        for _, nodes in sorted(alike.items(), key=_first_name):
            writer.write([RULE, fold_names(nodes), RULE, *_lines(bytes(kept[nodes[0]]))])


class Streamed(Endings):
    """Shows lines as they come, each behind its node's name."""

    def __init__(self, out: LineWriter, err: LineWriter) -> None:
        super().__init__(err)
        self._writers = {"out": out, "err": err}
        self._decoders: dict[tuple[str, str], LineDecoder] = {}

    def output(self, node: str, stream: str, chunk: bytes) -> None:
        decoder = self._decoders.setdefault((node, stream), LineDecoder())
        self._write(node, stream, decoder.feed(chunk))

    def ended(self, node: str, outcome: Outcome) -> None:
        for stream in self._writers:
            decoder = self._decoders.pop((node, stream), None)
            if decoder is not None:
                self._write(node, stream, decoder.finish())
        super().ended(node, outcome)

    def _write(self, node: str, stream: str, lines: Iterable[str]) -> None:
        self._writers[stream].write(f"{node}: {line}" for line in lines)


class EndingRecords(Endings):
    """A record for each node as it ends, for machines: ``node``, ``state`` (ended, timed-out, lost,
    not-started, not-reached), ``exit_code`` (128 + number for a signal, else null), ``reason``,
    ``stdout`` and ``stderr`` (text, of which the first 4 MiB), and ``cut``.
    """

    def __init__(self, record: Callable[[Mapping[str, object]], None], err: LineWriter) -> None:
        super().__init__(err)
        self._record = record
        self._kept: dict[tuple[str, str], bytearray] = {}

    def output(self, node: str, stream: str, chunk: bytes) -> None:
        kept = self._kept.setdefault((node, stream), bytearray())
        kept += chunk[: KEPT_BYTES + 1 - len(kept)]

    def ended(self, node: str, outcome: Outcome) -> None:
        super().ended(node, outcome)
        reason = "" if outcome == Exited(0) else describe_outcome(outcome)
        self._tell(node, _STATES.get(type(outcome), "lost"), outcome, reason)

    def unreachable(self, node: str, why: str) -> None:
        super().unreachable(node, why)
        self._tell(node, "not-reached", None, why)

    def not_started(self, node: str, outcome: Outcome | None, why: str) -> None:
        super().not_started(node, outcome, why)
        self._tell(node, "not-started", outcome, why)

    def _tell(self, node: str, state: str, outcome: Outcome | None, reason: str) -> None:
        kept = {name: bytes(self._kept.pop((node, name), b"")) for name in ("out", "err")}
        said = {f"std{name}": _as_text(content[:KEPT_BYTES]) for name, content in kept.items()}
        record = {
            "node": node,
            "state": state,
            "exit_code": _code_of(outcome),
            "reason": brief_text(reason, 400),
            **said,
            "cut": any(len(content) > KEPT_BYTES for content in kept.values()),
        }
        self._record(record)


_STATES: Mapping[type[object], str] = {
    Exited: "ended", Signalled: "ended", TimedOut: "timed-out"
}  # fmt: skip


def _code_of(outcome: Outcome | None) -> int | None:
    match outcome:
        case Exited(code=code):
            return code
        case Signalled(signal=number):
            return 128 + number
    return None


def _as_text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def fold_names(nodes: list[str]) -> str:
    """Folded, with the count when there are several."""
    folded = fold_nodeset(nodes) if all(map(is_name, nodes)) else brief_text(", ".join(nodes))
    return f"{folded} ({len(nodes)})" if len(nodes) > 1 else folded


def _first_name(answer: tuple[object, list[str]]) -> tuple[tuple[int, int, str], ...]:
    return min(map(natural_key, answer[1]))


def _without_last_break(content: bytearray) -> bytes:
    """What outputs are compared by: a last line with or without its break is shown the same."""
    return bytes(content).removesuffix(b"\n").removesuffix(b"\r")


def _lines(content: bytes) -> list[str]:
    decoder = LineDecoder()
    lines = [*decoder.feed(content[:KEPT_BYTES]), *decoder.finish()]
    return [*lines, f"{CUT_MARK} (more than 4 MiB)"] if len(content) > KEPT_BYTES else lines
