"""What no single line tells, but several together: versions, bandwidths, collectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.diagnosis.diagnosis_model import Clue, Evidence, LogSource, Sign, sign
from orchestrator.core.diagnosis.rules import BY_ID

Tails = Mapping[str, Sequence[tuple[int, str]]]  # by the name of a log: line numbers and lines
SLOWER = 0.6  # of the other's bus bandwidth, from which on it is no noise
_VERSION, _BANDWIDTH, _WORK = "version", "bandwidth", "work"
ENDED_WELL, _ENDS_STEP, _ENDS_TREE = "ended well", "ends step", "ends tree"
LATEST = WENT_ON, SERVES = "went on", "serves"  # the last of their kind count
_KILLED, _BY_SRUN = "HOST-KILL-001", "srun: error: "
_UNQUALIFIED = r"(?!.{0,40}(?:error|fail|exit|abort|with ))"
_COUNTED = r"\d{1,6} (?:skipped|deselected|xfailed|xpassed|warnings?|rerun)"
_EXITED_WELL = "exited well"  # of a whole log, whose launcher's shell says so

OBSERVED: Mapping[str, tuple[Sign, ...]] = {
    _VERSION: (sign("NCCL version", r"NCCL version (?P<version>\d{1,3}\.\d{1,3}\.\d{1,3})"),),
    _BANDWIDTH: (
        sign("Avg bus bandwidth", r"Avg bus bandwidth {1,8}: (?P<rate>\d{1,7}(?:\.\d{1,9})?)"),
    ),
    _WORK: (
        sign(
            "WorkNCCL(",
            r"\[(?P<group>PG [^\]]{0,80}?)? ?Rank (?P<rank>\d{1,6})\] Watchdog caught .{0,60}"
            r"WorkNCCL\(SeqNum=(?P<sequence>\d{1,12}), OpType=(?P<operation>\w{1,40})"
            r"(?:, NumelIn=(?P<elements>\d{1,15}))?",
        ),
    ),
    # How programs say that they came to their end as they were meant to.
    ENDED_WELL: (
        sign("worker group successfully finished"),
        sign("'train_runtime'"),
        sign("`Trainer.fit` stopped: `max_"),
        sign("Training completed", rf"Training completed{_UNQUALIFIED}"),
        sign("raining finished", rf"raining finished{_UNQUALIFIED}"),
        sign("exits successfully"),
        sign("tep", r"\b[Ss]teps?:? {0,3}(\d{2,9}) ?/ ?\1\b"),
        sign("teration", r"\b[Ii]terations?:? {0,8}(\d{2,9}) ?/ {0,8}\1\b"),
        # pytest's and unittest's last lines, of tests that all passed.
        sign(
            " passed",
            rf"^={{1,80}} (?:{_COUNTED}, ){{0,5}}\d{{1,6}} passed(?:, {_COUNTED}){{0,5}} in ",
        ),
        sign("OK", r"^OK(?: \([\w =,]{1,80}\))?$", around=r"\bRan \d{1,6} tests? in \d"),
        sign("Job succeeded"),
        sign("Job '", r"Job '[\w.-]{1,80}' succeeded"),
    ),
    _EXITED_WELL: tuple(
        sign(
            f"{word}{sep}0",
            rf"^\W{{0,4}}(?:(?:done|finished|completed|exited|job|run|with)\W{{1,4}}){{0,4}}{word}{sep}0\.?$",
        )
        for word in ("exit code", "exit status", "exit_code")
        for sep in (" ", ": ", "=")
    ),
    _ENDS_STEP: (sign("srun: Terminating "), sign("srun: Job step aborted")),
    # SGLang ends all its processes, itself included, by SIGKILL.
    _ENDS_TREE: (sign("Received sigquit from a child process"),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A line that means something only beside others of its ``kind``."""

    kind: str
    source: LogSource
    line: int
    text: str
    told: Mapping[str, str]
    at: float | None = None


def compare_remarks(remarks: Sequence[Remark]) -> Iterator[Clue]:
    """What remarks of different ranks or files say together."""
    versions = [r for r in remarks if r.kind == _VERSION]
    bandwidths = [r for r in remarks if r.kind == _BANDWIDTH]
    if len({r.source.name for r in bandwidths}) > 1:
        yield from _slower_versions(bandwidths, versions)
    else:
        yield from _mixed_versions(versions)
    yield from _different_collectives([r for r in remarks if r.kind == _WORK])


def find_good_ends(remarks: Sequence[Remark]) -> dict[str, int]:
    """The last line of each log in which its program says that it ended well, by the log's name."""
    ends: dict[str, int] = {}
    for remark in remarks:
        whole = remark.source.node == "" and remark.source.rank is None
        if remark.kind == ENDED_WELL or (remark.kind == _EXITED_WELL and whole):
            ends[remark.source.name] = max(remark.line, ends.get(remark.source.name, 0))
    return ends


def find_proven_end(remarks: Sequence[Remark], tails: Tails) -> Evidence | None:
    """A line that shows that the program ended well, if each log has one among its last lines."""
    ends = find_good_ends(remarks)
    near = [bool(lines) and lines[0][0] <= ends.get(name, -1) for name, lines in tails.items()]
    if not near or not all(near):
        return None
    last = {(name, line) for name, line in ends.items()}
    proof = next(each for each in remarks if (each.source.name, each.line) in last)
    return Evidence(file=proof.source.name, line=proof.line, text=proof.text)


def find_lives(remarks: Sequence[Remark], kind: str) -> dict[tuple[object, ...], int]:
    """The last line after which a writer showed by signs of ``kind`` that it lives, by log and
    writer.
    """
    lives: dict[tuple[object, ...], int] = {}
    for remark in remarks:
        if remark.kind == kind:
            key = (remark.source.name, remark.source.key)
            lives[key] = max(remark.line, lives.get(key, 0))
    return lives


def without_ended_tasks(clues: Sequence[Clue], remarks: Sequence[Remark]) -> list[Clue]:
    """Not that tasks were killed, of which srun tells after it began to end their step; nor that a
    server was, which ends its processes and itself once one of them has failed.
    """
    steps, trees = _first_lines(remarks, _ENDS_STEP), _first_lines(remarks, _ENDS_TREE)

    def was_ended(clue: Clue) -> bool:
        name = clue.source.name
        begins = [trees.get(name, clue.line)]
        begins += [steps.get(name, clue.line)] if _BY_SRUN in clue.text else []
        return clue.rule.id == _KILLED and clue.line > min(begins)

    return [clue for clue in clues if not was_ended(clue)]


def _first_lines(remarks: Sequence[Remark], kind: str) -> dict[str, int]:
    """The first line of that kind in each log."""
    first: dict[str, int] = {}
    for remark in remarks:
        if remark.kind == kind:
            name = remark.source.name
            first[name] = min(remark.line, first.get(name, remark.line))
    return first


def _slower_versions(bandwidths: Sequence[Remark], versions: Sequence[Remark]) -> Iterator[Clue]:
    """The same benchmark with two versions of NCCL, in two files."""
    version_of = {r.source.name: r.told["version"] for r in versions}
    known = [r for r in bandwidths if r.source.name in version_of]
    if len(known) < 2:
        return
    best = max(known, key=lambda r: float(r.told["rate"]))
    worst = min(known, key=lambda r: float(r.told["rate"]))
    old, new = version_of[best.source.name], version_of[worst.source.name]
    if old != new and float(worst.told["rate"]) < SLOWER * float(best.told["rate"]):
        told = {"before": best.told["rate"], "after": worst.told["rate"], "old": old, "new": new}
        yield _observed_clue("NCCL-PERF-001", worst, told)
        yield _observed_clue("NCCL-PERF-001", best, told)


def _mixed_versions(versions: Sequence[Remark]) -> Iterator[Clue]:
    """Each rank's own version, where not all are the same."""
    first = {(r.source.name, r.source.node, r.source.rank): r for r in reversed(versions)}
    counts = Counter(r.told["version"] for r in first.values())
    if len(counts) < 2:
        return
    words = [f"{version} on {count}" for version, count in counts.most_common()]
    told = {"versions": ", ".join(words)}
    seen: set[str] = set()
    for remark in reversed(first.values()):
        if remark.told["version"] not in seen:
            seen.add(remark.told["version"])
            yield _observed_clue("NCCL-VER-002", remark, told)


def _different_collectives(works: Sequence[Remark]) -> Iterator[Clue]:
    """The world's process group: ranks that wait in different collectives wait for ever."""
    world = [
        r
        for r in works
        if r.told.get("group", "") in {"", "PG 0", "PG ID 0"}
        or "default_pg" in r.told.get("group", "")
    ]
    first = {r.told["rank"]: r for r in reversed(world)}
    calls = Counter(_collective_call(r) for r in first.values())
    if len(calls) < 2:
        return
    usual, rare = calls.most_common()[0][0], calls.most_common()[-1][0]
    odd = [r for r in first.values() if _collective_call(r) == rare]
    other = next(r for r in first.values() if _collective_call(r) == usual)
    names = ", ".join(sorted((r.told["rank"] for r in odd), key=int)[:8])
    detail = f"rank {names} waits in {_call_words(rare)}, others in {_call_words(usual)}"
    yield _observed_clue("TORCH-COLL-002", odd[0], {"detail": detail})
    yield _observed_clue("TORCH-COLL-002", other, {"detail": detail})


def _collective_call(work: Remark) -> tuple[str, str, str]:
    return work.told["sequence"], work.told["operation"], work.told.get("elements", "")


def _call_words(call: tuple[str, str, str]) -> str:
    sequence, operation, elements = call
    return f"{operation} number {sequence}" + (f" of {elements} elements" if elements else "")


def _observed_clue(rule: str, remark: Remark, told: Mapping[str, str]) -> Clue:
    return Clue(
        rule=BY_ID[rule],
        source=remark.source,
        line=remark.line,
        text=remark.text,
        captures=told,
        at=remark.at,
        joint=True,
    )
