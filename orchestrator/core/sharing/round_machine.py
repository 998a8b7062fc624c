"""Training without collectives between nodes, decided: ``step(state, event, now)``. Pure.

    join    every node reports what it could begin with; the newest is what all begin with
    round   nodes train; each offers what its parameters changed by, or its part of a step's
            gradient; these are averaged, or summed, and all get the same update
    end     after the last round all nodes must have the same parameters

Events are recorded as they come; what follows is decided at ``Look``, when all that was there has
been taken in, and when something is on disk that had to be there before any node hears of it. A
coordinator that takes over therefore repeats the last words, and continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from orchestrator.core.sharing.round_protocol import (
    CloseRound,
    Closing,
    Ending,
    EndService,
    Fail,
    FeedParameters,
    FeedWords,
    FetchParameters,
    FetchPart,
    Heard,
    Joining,
    Kept,
    LivingSeen,
    Look,
    Over,
    ParametersFetched,
    PartFetched,
    PublishUpdate,
    Recalled,
    RoundAction,
    RoundEvent,
    RoundSaved,
    RoundState,
    RoundSummary,
    SaveStart,
    Saving,
    Starting,
    StartSaved,
    Training,
)
from orchestrator.core.sharing.rounds import (
    FEED_START,
    Exchanged,
    Part,
    RoundTerms,
    Start,
    choose_start,
    feed_number,
    first_shares,
    merge_curves,
    next_shares,
    patience_s,
    shares_from,
    weights_of,
)

JOIN_S = 1800.0
END_S = 300.0
# Rounds of single steps are many: of those in which nothing happened so few are reported.
REPORT_EVERY_S = 2.0
FLOAT_BYTES = 4

Next = tuple[RoundState, tuple[RoundAction, ...]]


def new_round_state(
    attempt: int, ranks: Mapping[str, int], kept: Kept | None, updates: tuple[int, ...]
) -> RoundState:
    """Of an attempt that begins, or that an earlier coordinator began: then it was ``kept``."""
    recalled = kept is not None and kept.attempt == attempt
    phase = Recalled(kept, updates) if kept is not None and recalled else Joining()
    return RoundState(attempt=attempt, ranks=ranks, phase=phase, next_feed=FEED_START)


def step(state: RoundState, event: RoundEvent, now: float) -> Next:
    """Take in ``event``; what to do, in this order. ``now`` is any monotonic clock.

    A ``Look`` at which there is nothing to do returns the very same ``state``.
    """
    match event, state.phase:
        case Heard(node=node, report=report), _:
            return replace(state, reports=state.reports.with_report(node, report)), ()
        case LivingSeen(nodes=nodes), _:
            return replace(state, living=nodes), ()
        case PartFetched(round=number, node=node, counts=counts), Training() as training:
            if number != training.kept.round + 1:
                return state, ()  # too late for its round
            fetches = {**training.fetches, node: counts}
            return replace(state, phase=replace(training, fetches=fetches)), ()
        case ParametersFetched(), Starting() as starting:
            return replace(state, phase=replace(starting, fetched=True)), ()
        case StartSaved(), Saving(kept=kept):
            return _begin(state, kept, alone=True)
        case RoundSaved(), Closing() as closing:
            return _publish_round(state, closing, now)
        case Look(), _:
            decided, actions = _look(state, now)
            return (state, ()) if decided == state else (decided, actions)
        case _:
            return state, ()


def _look(state: RoundState, now: float) -> Next:
    match state.phase:
        case Recalled() as recalled:
            return _continue(state, recalled)
        case Joining() as joining:
            return _join(state, joining, now)
        case Starting() as starting:
            return _start(state, starting)
        case Training() as training:
            return _train(state, training, now)
        case Ending() as ending:
            return _end(state, ending, now)
        case _:
            return state, ()


def _fail(state: RoundState, why: str) -> Next:
    return replace(state, phase=Over()), (Fail(why),)


def _alive(state: RoundState, kept: Kept) -> tuple[str, ...]:
    return tuple(node for node in state.living if node in kept.participants)


def _terms_of(state: RoundState, kept: Kept) -> RoundTerms:
    return state.reports.joined[kept.participants[0]].terms


def _first_round(state: RoundState, kept: Kept) -> int:
    return _terms_of(state, kept).round_after(kept.start)


# ---- the beginning -----------------------------------------------------------------------------


def _continue(state: RoundState, recalled: Recalled) -> Next:
    """Where an earlier coordinator stopped."""
    kept = recalled.kept
    if any(node not in state.reports.joined for node in kept.participants):
        return _fail(state, "the nodes' initial reports are missing")
    first = _first_round(state, kept)
    if kept.round < first:
        return _begin(state, kept, alone=False)
    state = replace(state, phase=Training(kept), next_feed=feed_number(kept.round + 1, first))
    updates = (number for number in recalled.updates if number <= kept.round)
    return state, tuple(_update_of(state, kept, number, None) for number in updates)


def _join(state: RoundState, joining: Joining, now: float) -> Next:
    """Wait for every living node; for those that take too long, no more than ``JOIN_S``."""
    joined = {n: state.reports.joined[n] for n in state.living if n in state.reports.joined}
    since = joining.since if joining.since is not None else (now if joined else None)
    late = since is not None and now - since > JOIN_S
    if len(joined) < len(state.living) and not late:
        return replace(state, phase=Joining(since)), ()
    if not joined:
        return replace(state, phase=Over()), (EndService(),)
    try:
        start = choose_start(joined)
    except ValueError as error:
        return _fail(state, f"the nodes cannot train together: {error}")
    terms = joined[start.source].terms
    before = terms.round_after(start.step) - 1
    shares = first_shares({node: state.ranks[node] for node in joined})
    row = tuple(shares.get(name, 0.0) for name in state.ranks)
    kept = Kept(
        attempt=state.attempt,
        start=start.step,
        participants=tuple(joined),
        round=before,
        step=start.step,
        values=terms.values,
        shares={before + 1: row, before + 2: row},
    )
    return replace(state, phase=Saving(kept)), (SaveStart(kept),)


def _begin(state: RoundState, kept: Kept, *, alone: bool) -> Next:
    """Let all begin, or first ask the one node that has what the others need."""
    start = _start_of(state, kept)
    if not start.needing:
        return _let_begin(state, kept, start)
    words = {**_start_words(state, kept, start), "offer": True, "needs": False}
    state = replace(state, phase=Starting(kept, start.source, alone))
    return state, (FeedWords(start.source, FEED_START, words),)


def _start(state: RoundState, starting: Starting) -> Next:
    """Wait for the newest parameters; whoever has them may be lost before that."""
    kept, source = starting.kept, starting.source
    if starting.fetched:
        return _let_begin(state, kept, _start_of(state, kept))
    if starting.asked:
        return state, ()
    if source not in state.living:
        if starting.alone:
            return replace(state, phase=Joining()), ()
        why = "the node with the latest checkpoint was lost while others waited for it"
        return _fail(state, why)
    offer = state.reports.offered.get(source)
    if offer is None:
        return state, ()
    if offer.bytes < FLOAT_BYTES * kept.values:
        return _fail(state, f"{source} offers {offer.bytes} bytes as its parameters")
    return replace(state, phase=replace(starting, asked=True)), (FetchParameters(source, offer),)


def _let_begin(state: RoundState, kept: Kept, start: Start) -> Next:
    words = _start_words(state, kept, start)
    actions: list[RoundAction] = []
    for node in kept.participants:
        if node == start.source and start.needing:
            continue  # it was asked to begin when it was asked for its parameters
        needs = node in start.needing
        if needs:
            actions.append(FeedParameters(node))
        actions.append(FeedWords(node, FEED_START, {**words, "offer": False, "needs": needs}))
    first = _first_round(state, kept)
    state = replace(state, phase=Training(kept), next_feed=feed_number(kept.round + 1, first))
    return state, tuple(actions)


def _start_of(state: RoundState, kept: Kept) -> Start:
    return choose_start({node: state.reports.joined[node] for node in kept.participants})


def _start_words(state: RoundState, kept: Kept, start: Start) -> dict[str, Any]:
    return {
        "type": "start",
        "step": kept.start,
        "shares": _listed(kept.shares),
        "sha256": state.reports.joined[start.source].sha256,
        "reports": _reporter_of(state, kept),
        "ranks": list(state.ranks.values()),
    }


# ---- a round -----------------------------------------------------------------------------------


def _train(state: RoundState, training: Training, now: float) -> Next:
    """Fetch parts as they are announced; close the round once nobody else is waited for."""
    kept, terms = training.kept, _terms_of(state, training.kept)
    alive = _alive(state, kept)
    announced = state.reports.parts.get(kept.round + 1, {})
    here = {n: announced[n] for n in kept.participants if training.fetches.get(n)}
    if kept.round >= terms.last_round or not (alive or announced):
        return _look(replace(state, phase=Ending(kept)), now)
    new = [n for n in kept.participants if n in announced and n not in training.fetches]
    began = training.began if training.began is not None else (now if new else None)
    training = Training(kept, {**training.fetches, **dict.fromkeys(new)}, began)
    state = replace(state, phase=training)
    if new:
        return state, tuple(FetchPart(node, announced[node], terms) for node in new)
    open_fetches = {node for node, counts in training.fetches.items() if counts is None}
    awaited = {node for node in alive if node not in training.fetches} | open_fetches & {*alive}
    if awaited and not (here and _is_late(training, here, now)):
        return state, ()
    if here:
        return _close_round(state, training, here, now)
    if alive:
        return _fail(state, f"no part of round {kept.round + 1} was acceptable")
    return _look(replace(state, phase=Ending(kept)), now)


def _is_late(training: Training, here: Mapping[str, Part], now: float) -> bool:
    waited_s = now - training.began if training.began is not None else 0.0
    return waited_s > patience_s(part.pace for part in here.values())


def _close_round(
    state: RoundState, training: Training, parts: Mapping[str, Part], now: float
) -> Next:
    before, terms = training.kept, _terms_of(state, training.kept)
    number = before.round + 1
    shares = next_shares(
        dict(zip(state.ranks, before.shares[number + 1], strict=True)),
        _alive(state, before),
        state.reports.paces,
        terms,
    )
    row = tuple(shares.get(name, 0.0) for name in state.ranks)
    kept = replace(
        before,
        round=number,
        step=terms.end_of(number),
        shares=shares_from(number, before.shares[number + 1], row, terms),
    )
    rows = {node: part.rows for node, part in parts.items()}
    summary = RoundSummary(
        round=number,
        step=kept.step,
        rows=rows,
        missing=tuple(node for node in kept.participants if node not in parts),
        part_bytes=sum(part.file.bytes for part in parts.values()),
        exchanged=terms.exchanged,
        began=training.began if training.began is not None else now,
    )
    close = CloseRound(kept, terms, weights_of(terms, rows), _header_of(state, kept, parts))
    return replace(state, phase=Closing(kept, summary)), (close,)


def _header_of(state: RoundState, kept: Kept, parts: Mapping[str, Part]) -> dict[str, Any]:
    terms, index = _terms_of(state, kept), list(state.ranks)
    return {
        "round": kept.round,
        "step": kept.step,
        "included": [index.index(node) for node in parts],
        "shares": _listed(kept.shares),
        "reports": _reporter_of(state, kept),
        "curve": [asdict(told) for told in merge_curves([part.curve for part in parts.values()])],
        "compression": terms.compression,
        "values": terms.values,
    }


def _publish_round(state: RoundState, closing: Closing, now: float) -> Next:
    kept, summary = closing.kept, closing.summary
    reports = state.reports.after_round(kept.round)
    number = feed_number(kept.round + 1, _first_round(state, kept))
    state = replace(state, phase=Training(kept), reports=reports, next_feed=number)
    if not _is_reportable(state, summary, now):
        return state, (_update_of(state, kept, kept.round, None),)
    state = replace(state, reported_at=now, reported_missing=summary.missing)
    return state, (_update_of(state, kept, kept.round, summary),)


def _is_reportable(state: RoundState, summary: RoundSummary, now: float) -> bool:
    many = summary.exchanged is Exchanged.GRADIENTS
    recent = state.reported_at is not None and now - state.reported_at < REPORT_EVERY_S
    phase = state.phase
    assert isinstance(phase, Training)
    last = summary.round >= _terms_of(state, phase.kept).last_round
    return not (many and not last and recent and summary.missing == state.reported_missing)


def _update_of(
    state: RoundState, kept: Kept, number: int, summary: RoundSummary | None
) -> PublishUpdate:
    feed = feed_number(number, _first_round(state, kept))
    return PublishUpdate(number, feed, _alive(state, kept), _terms_of(state, kept), summary)


# ---- the end -----------------------------------------------------------------------------------


def _end(state: RoundState, ending: Ending, now: float) -> Next:
    """All nodes that are left must have the same parameters; they wait to hear that."""
    kept, ended = ending.kept, state.reports.ended
    alive = _alive(state, kept)
    since = ending.since if ending.since is not None else (now if ended else None)
    late = since is not None and now - since > END_S
    if any(node not in ended for node in alive) and not late:
        return replace(state, phase=Ending(kept, since)), ()
    digests = {node: ended[node].sha256 for node in kept.participants if node in ended}
    if len(set(digests.values())) > 1:
        found = ", ".join(f"{node} {digest[:12]}" for node, digest in digests.items())
        return _fail(state, f"the nodes ended with different parameters: {found}")
    words = {"type": "verdict", "reports": _reporter_of(state, kept)}
    verdicts = tuple(FeedWords(node, state.next_feed, words) for node in alive)
    return replace(state, phase=Over()), (*verdicts, EndService())


def _reporter_of(state: RoundState, kept: Kept) -> int:
    """The one node that reports what came of the training, for all."""
    alive = _alive(state, kept) or kept.participants
    return list(state.ranks).index(alive[0])


def _listed(shares: Mapping[int, tuple[float, ...]]) -> dict[str, list[float]]:
    return {str(number): list(row) for number, row in shares.items()}
