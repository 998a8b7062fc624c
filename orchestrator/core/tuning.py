"""The environment of a node's ranks, derived from facts: every variable with the rule that set it.

Nothing is set without a reason, and a user's own setting always wins. Sources: the environment
variable chapters of the NCCL user guide and of the PyTorch distributed documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.core.command import Text
from orchestrator.core.facts import Facts, Hca
from orchestrator.core.plan import Variable

USER, FACTS, LAUNCHER = "user", "facts", "launcher"
# Variables of torch's flight recorder: name before torch 2.11 and since, value, reason.
RECORDER = (
    (
        "TORCH_NCCL_TRACE_BUFFER_SIZE",
        "TORCH_FR_BUFFER_SIZE",
        "2000",
        "keeps the last 2000 collectives per rank",
    ),
    (
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
        "TORCH_FR_DUMP_TEMP_FILE",
        "{attempt}/flight_record_rank_",
        "flight records lie where they are found and cleaned up",
    ),
)


def derive(
    facts: Facts,
    *,
    ranks: int,
    nodes: int,
    interface: str | None,
    shared_by: int = 1,
    torch: str = "",
) -> Iterator[Variable]:
    """Variables for ``ranks`` ranks on one of ``nodes`` nodes.

    ``interface`` carries the rendezvous (None = unknown); ``shared_by`` inventory nodes share
    the CPUs; ``torch`` is the version in the ranks' interpreter, "" = unknown.
    """
    if facts.cpus:
        yield _threads(facts, ranks * shared_by)
    if nodes > 1 and interface:
        why = "the interface that this node reaches the rendezvous through"
        yield Variable(name="GLOO_SOCKET_IFNAME", value=interface, origin=FACTS, reason=why)
        if facts.gpus:
            # "=" asks NCCL for an exact match; a bare name is a prefix and eth1 would match eth10.
            yield Variable(
                name="NCCL_SOCKET_IFNAME", value=f"={interface}", origin=FACTS, reason=why
            )
    if facts.gpus:
        yield from _nccl(facts, nodes)
        yield from _flight_recorder(torch)


def merge(
    derived: Iterable[Variable], user: Mapping[str, Text], source: str
) -> tuple[Variable, ...]:
    """``derived`` with the user's variables laid over them; a replaced value stays visible."""
    table = {variable.name: variable for variable in derived}
    for name, value in user.items():
        replaced = table.get(name)
        reason = f"set in {source}"
        if replaced is not None and replaced.value != value:
            reason += f" (orchestrate would have set {replaced.value}: {replaced.reason})"
        table[name] = Variable(name=name, value=value, origin=USER, reason=reason)
    return tuple(table.values())


def visible_devices(gpus: tuple[int, ...], found: int) -> Variable:
    """Restricts a node's ranks to ``gpus`` of the ``found`` ones."""
    return Variable(
        name="CUDA_VISIBLE_DEVICES",
        value=",".join(map(str, gpus)),
        origin=FACTS,
        reason=f"this node's share: {len(gpus)} of {found} GPUs",
    )


def _threads(facts: Facts, ranks: int) -> Variable:
    threads = max(1, facts.cpus // max(1, ranks))
    return Variable(
        name="OMP_NUM_THREADS",
        value=str(threads),
        origin=FACTS,
        reason=f"{facts.cpus} CPUs divided by {ranks} rank{'s' if ranks != 1 else ''}",
    )


def _nccl(facts: Facts, nodes: int) -> Iterator[Variable]:
    yield Variable(
        name="NCCL_DEBUG", value="WARN", origin=FACTS, reason="errors must reach the rank's log"
    )
    active = [hca for hca in facts.hcas if _usable(hca)]
    if nodes > 1 and active and len(active) < len(facts.hcas):
        names = ",".join(sorted({hca.name for hca in active}))
        idle = sorted({hca.name for hca in facts.hcas} - {hca.name for hca in active})
        yield Variable(
            name="NCCL_IB_HCA",
            value=f"={names}",
            origin=FACTS,
            reason=f"active ports only, exact names; left out: {', '.join(idle) or 'other ports'}",
        )


def _flight_recorder(torch: str) -> Iterator[Variable]:
    """The recorder explains collectives that hang. torch 2.11 renamed its variables and warns of
    the old names; an unknown version gets both.
    """
    known = _release(torch)
    for old, new, value, reason in RECORDER:
        names = [old, new] if known is None else [new if known >= (2, 11) else old]
        for name in names:
            yield Variable(name=name, value=value, origin=FACTS, reason=reason)
    yield Variable(
        name="TORCH_NCCL_DUMP_ON_TIMEOUT",
        value="1",
        origin=FACTS,
        reason="a collective time-out leaves its flight record",
    )
    yield Variable(
        name="TORCH_NCCL_DEBUG_INFO_PIPE_FILE",
        value="{attempt}/flight_pipe_rank_",
        origin=FACTS,
        reason="a rank that hangs is asked for its flight record through this pipe",
    )


def _release(version: str) -> tuple[int, int] | None:
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _usable(hca: Hca) -> bool:
    return hca.state.upper().endswith("ACTIVE")
