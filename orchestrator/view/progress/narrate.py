"""Events as sentences, for terminals that cannot redraw and for logs of continuous integration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from orchestrator.core.base.outcome import describe_outcome, has_succeeded
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.comm_modes import Fallback
from orchestrator.core.model.facts import Facts
from orchestrator.core.run import machine
from orchestrator.core.run.connectivity import (
    Classified,
    FabricProbed,
    Fault,
    LinksBroken,
    LinksProbed,
    Reached,
    RendezvousOffered,
)
from orchestrator.core.run.events import (
    Begun,
    Cleared,
    Collected,
    Connected,
    DeadlinePassed,
    Divided,
    Event,
    Failed,
    Halting,
    Launched,
    NodeConcluded,
    NodeLost,
    Occupied,
    Phase,
    Prepared,
    Probed,
    ProcessExited,
    RankExited,
    RankStarted,
    Resumed,
    RoundClosed,
    StopKind,
    StopRequested,
    Swept,
    Synced,
)
from orchestrator.core.run.evidence import Inspected, Stalled
from orchestrator.core.run.state import LEASE, RunState
from orchestrator.core.sharing.rounds import Exchanged
from orchestrator.view.terminal.text import (
    TIMES,
    brief_text,
    count_noun,
    format_seconds,
    format_size,
)

# Outputs named on one line; the report has more of them.
MAX_LEFT_OUT = 3


class Weight(IntEnum):
    """How much a line matters. DETAIL only with ``-v``; a PROBLEM also with ``-q``."""

    DETAIL = 0
    NODE = 1
    RUN = 2
    PROBLEM = 3


@dataclass(frozen=True, slots=True)
class NarratedLine:
    """A sentence about a node, or about the run (``node`` empty)."""

    weight: Weight
    text: str
    node: str = ""


def narrate_event(event: Event, state: RunState) -> NarratedLine | None:
    """What to say about ``event``; None for what a line would not help with."""
    match event:
        case Begun():
            return _begun(state)
        case Resumed(again=True):
            return NarratedLine(Weight.RUN, brief_text(_begins_again(state), 300))
        case Resumed():
            return _resumed(state)
        case Occupied(node=node, holder=holder):
            return NarratedLine(Weight.PROBLEM, f"in use by {brief_text(holder, 300)}", node)
        case StopRequested(kind=kind, by=by):
            return NarratedLine(Weight.PROBLEM, f"{brief_text(by)}: {_stopping(kind, state)}")
        case DeadlinePassed(phase=phase, after_s=after_s):
            text = f"phase {phase.value} did not finish within {format_seconds(after_s)}"
            return NarratedLine(Weight.PROBLEM, text)
        case Failed(node=node, problem=problem) | NodeLost(node=node, problem=problem):
            return NarratedLine(Weight.PROBLEM, _problem(problem), node)
        case RankExited() | ProcessExited():
            return _ended(event)
        case Stalled() | Inspected():
            return _stalled(event, state)
        case Classified() | Divided() | RoundClosed():
            return _on_the_ladder(event, state)
        case FabricProbed() | LinksBroken():
            return _fabric(event)
        case _:
            return _before_launch(event, state) or _after_launch(event, state)


def _on_the_ladder(
    event: Classified | Divided | RoundClosed, state: RunState
) -> NarratedLine | None:
    """Another way to communicate, and what became of the work there."""
    match event:
        case Classified(fault=Fault.FABRIC, reason=reason):
            failed = state.falls[-1].rung.value if state.falls else "the fabric"
            text = f"{failed} failed: {brief_text(reason, 300)}; attempt {state.attempt} falls back"
            return NarratedLine(Weight.PROBLEM, text)
        case Divided(total=total, done=done, failed=failed, final=final):
            told = f"{done} of {count_noun(total, 'sample')} done" + f", {failed} failed" * bool(
                failed
            )
            return NarratedLine(Weight.RUN if final else Weight.DETAIL, told)
        case RoundClosed(round=number, step=step, weights=weights, missing=missing):
            nodes = count_noun(len(weights), "node")
            text = f"round {number} closed after step {step}: {nodes} averaged"
            if event.exchanged is Exchanged.GRADIENTS:
                text = f"step {step}: gradients of {nodes} summed over SSH"
            if missing:
                text += f", without {brief_text(', '.join(missing), 200)}"
            before = [closed.missing for closed in state.rounds if closed.round < number]
            is_news = bool(missing) and (not before or before[-1] != missing)
            return NarratedLine(Weight.PROBLEM if is_news else Weight.DETAIL, text)
        case _:
            return None


def _stalled(event: Stalled | Inspected, state: RunState) -> NarratedLine | None:
    """The suspicion, and what came of it once every node was looked at."""
    match event:
        case Stalled(silent_s=silent_s, ranks=ranks):
            who = f" of {count_noun(len(ranks), 'rank')}" if ranks else ""
            text = f"no progress{who} for {silent_s:.0f} s: looking at all ranks"
            return NarratedLine(Weight.PROBLEM, text)
        case Inspected():
            if state.hang is not None:
                return NarratedLine(Weight.PROBLEM, brief_text(state.hang.sentence, 400))
            if state.stall is None:
                return NarratedLine(
                    Weight.RUN, "not a hang: ranks produced output, or could not be inspected"
                )
            return None


def _fabric(event: FabricProbed | LinksBroken) -> NarratedLine:
    """What a probe of the network between the nodes came to; or that it broke in mid-run."""
    match event:
        case LinksBroken(links=links, seconds=took):
            shown = ", ".join(f"{brief_text(a, 60)} to {brief_text(b, 60)}" for a, b in links[:8])
            more = f" and {len(links) - 8} more" if len(links) > 8 else ""
            text = f"no connection for {format_seconds(took)} and no progress: {shown}{more}"
            return NarratedLine(Weight.PROBLEM, text)
        case FabricProbed(ok=False, reason=reason, rung=rung, seconds=took):
            text = f"fabric probe of {rung.value} failed after {format_seconds(took)}: {reason}"
            return NarratedLine(Weight.PROBLEM, brief_text(text, 600))
        case FabricProbed(busbw_gbps=busbw, cached=cached, seconds=took, rung=rung):
            speed = f", {busbw:.3g} GB/s" if busbw is not None else ""
            when = "proven within the last day" if cached else f"proven in {format_seconds(took)}"
            if event.reason:
                return NarratedLine(
                    Weight.PROBLEM, brief_text(f"fabric {when}, but {event.reason}", 400)
                )
            return NarratedLine(Weight.RUN, f"fabric {when}: {rung.value}{speed}")


def _begun(state: RunState) -> NarratedLine:
    request = state.request
    nodes = count_noun(len(state.nodes), "node")
    text = f"run {request.run_id}: {request.job.workload.name} on {request.cluster.name} ({nodes})"
    return NarratedLine(Weight.RUN, brief_text(text))


def _begins_again(state: RunState) -> str:
    anew = state.request.begins_anew
    whence = "anew: a test cannot be resumed" if anew else "from checkpoints if there are any"
    earlier = "what earlier attempts left is kept"
    return f"run {state.request.run_id} begins attempt {state.attempt}, {whence}; {earlier}"


def _resumed(state: RunState) -> NarratedLine:
    """What is restored of the run, and in which phase it continues."""
    nodes = state.nodes.values()
    started = sum(len(node.ranks) for node in nodes)
    ended = sum(1 for ending in state.endings if isinstance(ending, RankExited))
    counts = (
        (sum(node.ready for node in nodes), "ready"),
        (sum(node.launched for node in nodes), "launched"),
        (sum(node.collected is not None for node in nodes), "collected"),
    )
    kept = [f"{count_noun(count, 'node')} {what}" for count, what in counts if count]
    kept += [f"{count_noun(started, 'rank')} started, {ended} ended"] if started else []
    phase = machine.current_phase(state)
    where = "running" if phase is Phase.WATCH else phase.value
    text = f"resuming {state.request.run_id}: attempt {state.attempt}, phase {where}; "
    text += f"restored: {', '.join(kept) or 'nothing yet'}"
    return NarratedLine(Weight.RUN, brief_text(text, 300))


def _stopping(kind: StopKind, state: RunState) -> str:
    if kind is StopKind.GRACEFUL:
        return "stopping gracefully (Ctrl-C again to force-kill)"
    left = [name for name, node in state.nodes.items() if node.connected and node.swept is None]
    waiting = f"; waiting for {brief_text(', '.join(left), 200)}" if left else ""
    return f"force-killing{waiting} (Ctrl-C again to exit without waiting)"


def _problem(problem: Problem) -> str:
    return f"{brief_text(problem.message, 400)} ({brief_text(problem.id, 40)})"


def _before_launch(event: Event, state: RunState) -> NarratedLine | None:
    match event:
        case Connected(node=node, seconds=took):
            return NarratedLine(Weight.NODE, f"connected in {format_seconds(took)}", node)
        case Probed(node=node, facts=facts):
            return NarratedLine(Weight.NODE, _facts(facts), node)
        case Cleared(node=node, clean=True):
            return NarratedLine(Weight.NODE, "nothing of an earlier attempt is left", node)
        case Cleared(node=node, survivors=survivors):
            left = brief_text(", ".join(survivors[:8]))
            return NarratedLine(Weight.PROBLEM, f"an earlier attempt is still there: {left}", node)
        case Synced(node=node, sent_files=files, sent_bytes=sent):
            what = (
                f"sent {count_noun(files, 'file')}, {format_size(sent)}"
                if files
                else "already up to date"
            )
            return NarratedLine(Weight.NODE, f"code {what}", node)
        case Prepared(node=node, interpreter=path, modules=modules, image=image):
            inside = f" in the image {image.digest[:19]}" if image is not None else ""
            versions = "".join(f", {name} {version}" for name, version in modules.items())
            program = state.request.job.workload.program
            what = "its Python is" if program else "ranks run under"
            return NarratedLine(Weight.NODE, brief_text(f"{what} {path}{inside}{versions}"), node)
        case RendezvousOffered(node=node, port=port):
            return NarratedLine(Weight.DETAIL, f"offers port {port} for the rendezvous", node)
        case LinksProbed() if state.falls and state.plan is not None:
            return NarratedLine(Weight.PROBLEM, _fall(state.falls, state.plan.rung))
        case Reached(node=node, addresses=addresses):
            reached = (
                ", ".join(brief_text(a, 60) for a in addresses[:4]) or "no address of the head"
            )
            return NarratedLine(Weight.DETAIL, f"reaches {reached}", node)
        case _:
            return None


def _fall(falls: Sequence[Fallback], rung: str) -> str:
    """The first mode that failed, and the next one, if there is any."""
    first = falls[0]
    text = f"{first.rung.value} failed: {brief_text(first.reason, 300)}"
    over = any(fall.rung == rung for fall in falls)
    return f"{text}; no communication mode is left" if over else f"{text}; falling back to {rung}"


def _facts(facts: Facts) -> str:
    names = sorted({gpu.name for gpu in facts.gpus})
    gpus = f"{len(facts.gpus)} {TIMES} {', '.join(names)}" if names else "no GPU"
    parts = [gpus, *([f"driver {facts.driver}"] if facts.driver else []), f"{facts.cpus} CPUs"]
    return brief_text(", ".join(parts))


def _after_launch(event: Event, state: RunState) -> NarratedLine | None:
    match event:
        case Launched(node=node):
            return NarratedLine(Weight.DETAIL, "launched", node)
        case RankStarted(node=node):
            return _rank_started(node, state)
        case NodeConcluded(node=node, clean=clean, survivors=survivors):
            if clean:
                return NarratedLine(Weight.NODE, "ended, no process left", node)
            left = brief_text(", ".join(survivors[:8]))
            return NarratedLine(Weight.PROBLEM, f"ended, still running: {left}", node)
        case Collected(node=node):
            return NarratedLine(
                Weight.PROBLEM if event.left else Weight.NODE, _collected(event), node
            )
        case Halting(node=node, why=why) if why == LEASE:
            text = "lease expired (no coordinator heartbeat): terminating its ranks"
            return NarratedLine(Weight.PROBLEM, text, node)
        case Swept(node=node):
            return _swept(event, node, state)
        case _:
            return None


def _collected(event: Collected) -> str:
    links = f" and {count_noun(event.links, 'link')}" if event.links else ""
    text = f"collected {count_noun(event.files, 'file')}{links}, {format_size(event.bytes)}"
    if not event.left:
        return text
    named = "; ".join(brief_text(one) for one in event.left_out[:MAX_LEFT_OUT])
    more = "; ..." if event.left > MAX_LEFT_OUT else ""
    return f"{text} ({event.left} left out: {named}{more})"


def _swept(event: Swept, node: str, state: RunState) -> NarratedLine:
    if not event.clean:
        left = brief_text(", ".join(event.survivors[:8]))
        return NarratedLine(Weight.PROBLEM, f"not clean: {left}", node)
    if event.gpu_drained is False:
        return NarratedLine(
            Weight.PROBLEM, "all processes exited, but GPU memory was not freed", node
        )
    drained = ", GPU memory freed" if event.gpu_drained else ""
    weight = Weight.DETAIL if state.stop is None else Weight.NODE
    return NarratedLine(weight, f"verified clean{drained}", node)


def _rank_started(node: str, state: RunState) -> NarratedLine | None:
    """One line per node, when its last rank is up."""
    if state.plan is None or node not in state.nodes:
        return None
    wanted = {rank for share in state.plan.nodes if share.name == node for rank in share.ranks}
    if not wanted or state.nodes[node].ranks.keys() != wanted:
        return None
    return NarratedLine(Weight.NODE, f"{count_noun(len(wanted), 'rank')} up", node)


def _ended(event: RankExited | ProcessExited) -> NarratedLine:
    who = f"rank {event.rank}" if isinstance(event, RankExited) else brief_text(event.label, 40)
    what = f"{who} {brief_text(describe_outcome(event.outcome))}"
    if event.by_us:
        return NarratedLine(Weight.DETAIL, f"{what}, stopped by orchestrate", event.node)
    if has_succeeded(event.outcome):
        return NarratedLine(Weight.DETAIL, what, event.node)
    last = f": {brief_text(event.last_line, 300)}" if event.last_line else ""
    return NarratedLine(Weight.PROBLEM, what + last, event.node)
