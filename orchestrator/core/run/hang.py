"""Hangs: when ranks are suspected, whether the evidence confirms it, and who is to blame. Pure.

A hang is silence: no log byte, no progress and no metric for ``limit_s`` seconds. Silence alone
proves little, so that a suspicion leads to an inspection of every node, and only what the nodes
themselves confirm ends a run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.run.evidence import Inspection, RankEvidence

# The share of the limit within which a rank wrote that goes on while others are silent. Ranks that
# hang together fall silent one after the other: the first of them is not the only one.
GOES_ON = 0.5
# What a node may lag behind the coordinator's own count of its silence.
SLACK_S, SLACK = 2.0, 0.1
BUSY_GPU, IDLE_GPU = 95, 5
STOPPED_STATES = frozenset("Tt")
SLEEPS = frozenset({"nanosleep", "clock_nanosleep", "hrtimer_nanosleep"})
COLLECTIVES = frozenset(
    "all_gather all_gather_into_tensor all_gather_object all_reduce all_to_all all_to_all_single "
    "barrier batch_isend_irecv broadcast broadcast_object_list gather gather_object "
    "monitored_barrier recv reduce reduce_scatter reduce_scatter_tensor scatter send".split()
)


# ---- suspicion ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """When a rank that still runs was last heard of. ``steady``: it reports progress again and
    again and is not done, so that its own silence means something while others go on.
    """

    node: str
    rank: int
    last: float
    steady: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """``ranks`` are silent though others are not; empty = every rank is. ``silent_s``: for how
    long, at least.
    """

    silent_s: float
    ranks: tuple[int, ...] = ()


def suspect_hang(table: Collection[Activity], now: float, limit_s: float) -> Suspicion | None:
    """Whether the ranks of ``table`` hang at ``now`` (same clock as ``Activity.last``).

    Some are suspected alone only while all others go on. Until each either does so or has been
    silent for ``limit_s``, there is no telling whether they wait for each other.
    """
    silent = [rank for rank in table if now - rank.last >= limit_s]
    if not silent:
        return None
    if len(silent) == len(table):
        return Suspicion(silent_s=now - max(rank.last for rank in silent))
    if any(GOES_ON * limit_s <= now - rank.last < limit_s for rank in table):
        return None
    alone = [rank for rank in silent if rank.steady]
    if not alone:
        return None
    ranks = tuple(sorted(rank.rank for rank in alone))
    return Suspicion(silent_s=now - max(rank.last for rank in alone), ranks=ranks)


def is_confirmed(
    ranks: Collection[int], limit_s: float, inspections: Mapping[str, Inspection]
) -> bool:
    """Whether the suspected ``ranks`` (empty = all) were silent on their nodes, too.

    A node that cannot be reached confirms nothing: its ranks may well go on.
    """
    if any(not inspection.reachable for inspection in inspections.values()):
        return False
    least_s = limit_s - max(SLACK_S, SLACK * limit_s)
    found = [e for inspection in inspections.values() for e in inspection.ranks]
    asked = [e for e in found if not ranks or e.rank in ranks]
    return bool(asked) and all(e.quiet_s is None or e.quiet_s >= least_s for e in asked)


# ---- blame -------------------------------------------------------------------------------------


class HangConfidence(StrEnum):
    """How much the evidence carries."""

    CERTAIN = "certain"
    LIKELY = "likely"
    WEAK = "weak"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Who holds the others up. ``reason`` completes "rank 3 on gpu02 ..."; ``rank`` None = the
    whole node. ``waiting``: what the others do meanwhile.
    """

    node: str
    rank: int | None
    reason: str
    confidence: HangConfidence
    waiting: str = ""

    @property
    def sentence(self) -> str:
        """``rank 1 on vh2 is stopped (SIGSTOP); 2 ranks wait for it in all_reduce``."""
        who = self.node if self.rank is None else f"rank {self.rank} on {self.node}"
        return f"{who} {self.reason}" + (f"; {self.waiting}" if self.waiting else "")


@dataclass(frozen=True, slots=True)
class _Witness:
    node: str
    seen: RankEvidence

    @property
    def rank(self) -> int:
        return self.seen.rank


@dataclass(frozen=True, slots=True)
class _Finding:
    culprits: Sequence[_Witness]
    reason: str
    confidence: HangConfidence


_Rule = Callable[[Sequence[_Witness]], _Finding | None]


def blame_rank(
    inspections: Mapping[str, Inspection], suspects: Collection[int] = ()
) -> Blame | None:
    """The first cause by the strongest evidence; None when there is nothing to go by.

    ``suspects`` (empty = every rank): others go on, and are none.
    """
    witnesses = [_Witness(node, seen) for node, i in inspections.items() for seen in i.ranks]
    witnesses.sort(key=lambda witness: witness.rank)
    for rule in _FACTS:
        if (found := _apply_rule(rule, witnesses, suspects)) is not None:
            return _blame_from(found, witnesses)
    mute = [(node, i.problem) for node, i in inspections.items() if i.problem and i.reachable]
    if mute and not suspects:
        node, problem = mute[0]
        reason = f"did not report on its ranks ({problem})"
        return Blame(node=node, rank=None, reason=reason, confidence=HangConfidence.LIKELY)
    for rule in _COMPARISONS:
        if (found := _apply_rule(rule, witnesses, suspects)) is not None:
            return _blame_from(found, witnesses)
    last = _quietest_rank([w for w in witnesses if not suspects or w.rank in suspects])
    return _blame_from(last, witnesses) if last is not None else None


def _apply_rule(
    rule: _Rule, witnesses: Sequence[_Witness], suspects: Collection[int]
) -> _Finding | None:
    found = rule(witnesses)
    if found is None or not suspects:
        return found
    culprits = [witness for witness in found.culprits if witness.rank in suspects]
    return replace(found, culprits=culprits) if culprits else None


def _blame_from(found: _Finding, witnesses: Sequence[_Witness]) -> Blame:
    first = found.culprits[0]
    others = len(found.culprits) - 1
    more = f" (so {'is 1 more rank' if others == 1 else f'are {others} more ranks'})"
    return Blame(
        node=first.node,
        rank=first.rank,
        reason=found.reason + (more if others else ""),
        confidence=found.confidence,
        waiting=_waiting_text([w for w in witnesses if w not in found.culprits]),
    )


def _waiting_text(others: Sequence[_Witness]) -> str:
    """``2 ranks wait for it in all_reduce``, as far as their evidence tells."""
    where = Counter(name for w in others if (name := _waits_in_collective(w.seen)))
    if not where:
        return ""
    name, count = where.most_common(1)[0]
    return f"{count} ranks wait for it in {name}" if count > 1 else f"1 rank waits for it in {name}"


def _waits_in_collective(seen: RankEvidence) -> str:
    """The collective that a rank waits in, by its stack or else by its flight record."""
    if name := _collective_of(seen.stack):
        return name
    pending = [c for c in seen.collectives if c.entered > c.completed and c.operation]
    return pending[0].operation if pending else ""


# ---- rules from facts about one rank -----------------------------------------------------------


def _stopped_process(witnesses: Sequence[_Witness]) -> _Finding | None:
    found = [w for w in witnesses if w.seen.state in STOPPED_STATES]
    traced = bool(found) and found[0].seen.state == "t"
    reason = "is held by a debugger" if traced else "is stopped (SIGSTOP)"
    return _Finding(found, reason, HangConfidence.CERTAIN) if found else None


def _uninterruptible_process(witnesses: Sequence[_Witness]) -> _Finding | None:
    found = [w for w in witnesses if w.seen.state == "D"]
    if not found:
        return None
    where = found[0].seen.waits_in
    reason = "is stuck in the kernel (uninterruptible sleep" + (f" in {where})" if where else ")")
    return _Finding(found, reason, HangConfidence.CERTAIN)


def _vanished_process(witnesses: Sequence[_Witness]) -> _Finding | None:
    found = [w for w in witnesses if w.seen.state in ("", "Z", "X")]
    reason = "has no process any more; its supervisor recorded no exit"
    return _Finding(found, reason, HangConfidence.CERTAIN) if found else None


# ---- rules that compare ranks ------------------------------------------------------------------


def _behind_in_sequence(witnesses: Sequence[_Witness]) -> _Finding | None:
    """By sequence numbers: who did not enter the collective that the others wait in."""
    laggards: dict[int, tuple[_Witness, str]] = {}
    for group, places in _process_groups(witnesses).items():
        last = max(place.entered for _, place in places)
        ahead = next(place for _, place in places if place.entered == last)
        what = f"has not entered {ahead.operation or 'collective'} number {last} of group {group}"
        late = [(w, what) for w, place in places if place.entered < last]
        laggards.update((w.rank, (w, what)) for w, what in late)
    if not laggards:
        return _mismatched_operation(witnesses)
    # Who waits in one group's collective cannot be the cause of another group's wait.
    free = [w for w, _ in laggards.values() if not _waits_in_record(w.seen)]
    culprits = sorted(free or [w for w, _ in laggards.values()], key=lambda w: w.rank)
    return _Finding(culprits, laggards[culprits[0].rank][1], HangConfidence.CERTAIN)


def _mismatched_operation(witnesses: Sequence[_Witness]) -> _Finding | None:
    """All came equally far, but not with the same operation."""
    for group, places in _process_groups(witnesses).items():
        names = Counter(p.operation for _, p in places if p.operation and p.entered > p.completed)
        if len(names) > 1:
            usual, rare = names.most_common(1)[0][0], names.most_common()[-1][0]
            culprits = [w for w, place in places if place.operation == rare]
            number = places[0][1].entered
            reason = f"called {rare} as number {number} of group {group}, others {usual}"
            return _Finding(culprits, reason, HangConfidence.LIKELY)
    return None


def _process_groups(witnesses: Sequence[_Witness]) -> dict[str, list[tuple[_Witness, _Place]]]:
    """Process groups of which at least two ranks told how far they came."""
    found: dict[str, list[tuple[_Witness, _Place]]] = defaultdict(list)
    for witness in witnesses:
        for c in witness.seen.collectives:
            # Groups of one name may be several, such as one per pipeline stage.
            members = f" {list(c.members)}" if 1 < len(c.members) < len(witnesses) else ""
            place = _Place(c.entered, c.completed, c.operation)
            found[c.group + members].append((witness, place))
    return {group: places for group, places in found.items() if len(places) > 1}


@dataclass(frozen=True, slots=True)
class _Place:
    entered: int
    completed: int
    operation: str


def _waits_in_record(seen: RankEvidence) -> bool:
    return any(c.entered > c.completed for c in seen.collectives)


def _elsewhere_by_stack(witnesses: Sequence[_Witness]) -> _Finding | None:
    """By Python stacks: who is elsewhere while the others wait in a collective."""
    told = [w for w in witnesses if w.seen.stack]
    if len(told) < 2:
        return None
    waiting = {w.rank: name for w in told if (name := _collective_of(w.seen.stack))}
    elsewhere = [w for w in told if w.rank not in waiting]
    if waiting and elsewhere:
        name = Counter(waiting.values()).most_common(1)[0][0]
        sure = HangConfidence.LIKELY if len(elsewhere) <= len(waiting) else HangConfidence.WEAK
        return _Finding(elsewhere, f"is in {_top_function(elsewhere[0])}, not in {name}", sure)
    if waiting:
        return _minority_finding(told, lambda w: waiting[w.rank], "waits in {0}, others in {1}")
    return _minority_finding(
        told, _stack_signature, f"is in {{top}}, unlike {len(told) - 1} other ranks"
    )


def _minority_finding(
    witnesses: Sequence[_Witness], key: Callable[[_Witness], str], reason: str
) -> _Finding | None:
    """Those who differ from what more than half of all have in common."""
    counts = Counter(map(key, witnesses))
    usual, count = counts.most_common(1)[0]
    odd = [w for w in witnesses if key(w) != usual]
    if not odd or count * 2 <= len(witnesses):
        return None
    text = reason.format(key(odd[0]), usual, top=_top_function(odd[0]))
    return _Finding(odd, text, HangConfidence.LIKELY)


def _idle_gpu(witnesses: Sequence[_Witness]) -> _Finding | None:
    """A collective's kernel spins at 100 % while it waits for the GPU that has not begun it."""
    told = [w for w in witnesses if w.seen.gpu_busy is not None]
    spinning = [w for w in told if (w.seen.gpu_busy or 0) >= BUSY_GPU]
    idle = [w for w in told if (w.seen.gpu_busy or 0) <= IDLE_GPU]
    if not spinning or not idle:
        return None
    count = f"{len(spinning)} other GPU" + ("s are" if len(spinning) > 1 else " is")
    return _Finding(idle, f"leaves its GPU idle while {count} fully busy", HangConfidence.LIKELY)


def _waits_otherwise(witnesses: Sequence[_Witness]) -> _Finding | None:
    """By what the kernel says: who waits elsewhere than most, or sleeps while the other waits."""
    told = [w for w in witnesses if w.seen.waits_in]
    if len(told) > 2:
        found = _minority_finding(told, lambda w: w.seen.waits_in, "is in {0}, most others in {1}")
        if found is not None:
            return _Finding(found.culprits, found.reason, HangConfidence.WEAK)
    asleep = [w for w in told if w.seen.waits_in in SLEEPS]
    if asleep and len(asleep) < len(told):
        return _Finding(asleep, f"sleeps ({asleep[0].seen.waits_in})", HangConfidence.WEAK)
    return None


def _quietest_rank(witnesses: Sequence[_Witness]) -> _Finding | None:
    told = [w for w in witnesses if w.seen.quiet_s is not None]
    if not told:
        silent = "never wrote anything, nor did any other rank"
        return _Finding(witnesses[:1], silent, HangConfidence.WEAK) if witnesses else None
    first = max(told, key=lambda w: w.seen.quiet_s or 0.0)
    where = next(iter((*first.seen.stack, first.seen.waits_in)), "")
    when = f"{first.seen.quiet_s:.0f} s ago" + (where and f", in {where}")
    reason = f"was the first rank to stop producing output ({when})"
    return _Finding([first], reason, HangConfidence.WEAK)


_FACTS: tuple[_Rule, ...] = (_stopped_process, _uninterruptible_process, _vanished_process)
_COMPARISONS: tuple[_Rule, ...] = (
    _behind_in_sequence,
    _elsewhere_by_stack,
    _idle_gpu,
    _waits_otherwise,
)


# ---- stacks ------------------------------------------------------------------------------------


def _collective_of(stack: Sequence[str]) -> str:
    """The collective that a stack is in: ``all_reduce``; "" if in none."""
    return next((name for name, _ in _parse_frames(stack) if name in COLLECTIVES), "")


def _stack_signature(witness: _Witness) -> str:
    """Where a rank is, without line numbers: ranks that wait alike have the same."""
    return " < ".join(f"{name} {file}" for name, file in _parse_frames(witness.seen.stack))


def _parse_frames(stack: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(function, file) of frames written ``function (file:line)``."""
    for frame in stack:
        name, _, place = frame.partition(" (")
        yield name, place.rpartition(":")[0]


def _top_function(witness: _Witness) -> str:
    return witness.seen.stack[0] if witness.seen.stack else "another place"
