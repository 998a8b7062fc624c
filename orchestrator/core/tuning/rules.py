"""From facts to variables. Sources: the environment variable chapters of the NCCL user guide and of
the PyTorch distributed documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Variable
from orchestrator.core.tuning.collective_adapters import choose_ports, hca_list
from orchestrator.core.tuning.gids import gid_treatment
from orchestrator.core.tuning.gpu_direct import gdr_level
from orchestrator.core.tuning.variable_sources import derived_variable, untouched_variable

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """``ranks`` ranks on one of ``nodes`` nodes. ``interface`` carries the rendezvous (None =
    unknown), ``address`` is where it is; ``shared_by`` inventory nodes share the CPUs; ``modules``
    are versions in the ranks' interpreter. ``bound`` are the GPUs of the local ranks, in their
    order, where each rank has one and its launcher can bind it. ``collectives``: ranks may use
    some, be it only within the node.
    """

    facts: Facts
    ranks: int
    nodes: int
    interface: str | None
    shared_by: int = 1
    modules: dict[str, str] = field(default_factory=dict)
    bound: tuple[int, ...] = ()
    collectives: bool = True


def derive_variables(at: Situation) -> Iterator[Variable]:
    """What follows; a variable without a value is left alone for that reason."""
    if at.facts.cpus:
        yield _thread_count(at.facts, at.ranks * at.shared_by)
    yield from _binding_variables(at)
    if at.nodes > 1 and at.interface:
        yield from _socket_variables(at.facts, at.interface)
    if at.facts.gpus and at.collectives:
        yield derived_variable(
            "NCCL_DEBUG", "WARN", "nccl-errors-in-log", "errors must reach the rank's log"
        )
        if at.nodes > 1:
            yield from _fabric_variables(at)
        yield from _flight_recorder(at.modules.get("torch", ""))


def visible_devices(gpus: tuple[int, ...], found: int) -> Variable:
    """Restricts a node's ranks to ``gpus`` of the ``found`` ones."""
    return derived_variable(
        "CUDA_VISIBLE_DEVICES",
        ",".join(map(str, gpus)),
        "gpu-share",
        f"this node's share: {len(gpus)} of {found} GPUs",
    )


def _thread_count(facts: Facts, ranks: int) -> Variable:
    threads = max(1, facts.cpus // max(1, ranks))
    return derived_variable(
        "OMP_NUM_THREADS",
        str(threads),
        "threads-share-cpus",
        f"{facts.cpus} CPUs divided by {ranks} rank{'s' if ranks != 1 else ''}",
        f"{facts.cpus} CPUs may be used",
    )


def _binding_variables(at: Situation) -> Iterator[Variable]:
    """A rank that runs beside its GPU copies to it without crossing the sockets' link."""
    near = {gpu.index: gpu.cpus for gpu in at.facts.gpus}
    lists = [near.get(index, "") for index in at.bound]
    if at.shared_by > 1 or len(at.facts.numa) < 2 or not all(lists) or len(set(lists)) < 2:
        return
    evidence = ", ".join(
        f"gpu{gpu.index} on NUMA node {gpu.numa_node}"
        for gpu in at.facts.gpus
        if gpu.index in at.bound
    )
    why = "each rank on the processors of its GPU's NUMA node"
    yield derived_variable("ORCHESTRATE_RANK_CPUS", ";".join(lists), "cpus-near-gpu", why, evidence)


def _socket_variables(facts: Facts, interface: str) -> Iterator[Variable]:
    why = "the interface that this node reaches the rendezvous through"
    found = next((i for i in facts.interfaces if i.name == interface), None)
    evidence = f"{interface} has {', '.join(found.addresses)}" if found else ""
    yield derived_variable("GLOO_SOCKET_IFNAME", interface, "rendezvous-route", why, evidence)
    if facts.gpus:
        # "=" asks NCCL for an exact match; a bare name is a prefix and eth1 would match eth10.
        yield derived_variable(
            "NCCL_SOCKET_IFNAME", f"={interface}", "rendezvous-route", why, evidence
        )


def _fabric_variables(at: Situation) -> Iterator[Variable]:
    """Adapters between nodes: which, by which address, and whether straight into GPU memory."""
    if at.facts.assumed:
        why = "the node was not asked, so nothing is known of its adapters"
        yield untouched_variable("NCCL_IB_HCA", "not-asked", why)
        return
    if not at.facts.hcas:
        yield untouched_variable("NCCL_IB_HCA", "no-adapters", "no adapters: NCCL uses sockets")
        return
    choice = choose_ports(at.facts)
    yield hca_list(choice)
    if choice.ports:
        yield gid_treatment(choice.ports)
        yield gdr_level(at.facts, choice.ports)


def _flight_recorder(torch: str) -> Iterator[Variable]:
    """The recorder explains collectives that hang. torch 2.11 renamed its variables and warns of
    the old names; an unknown version gets both.
    """
    known = parse_release(torch)
    evidence = f"torch {torch}" if torch else "torch's version is unknown"
    for old, new, value, reason in RECORDER:
        names = [old, new] if known is None else [new if known >= (2, 11) else old]
        for name in names:
            yield derived_variable(name, value, "flight-recorder", reason, evidence)
    yield derived_variable(
        "TORCH_NCCL_DUMP_ON_TIMEOUT",
        "1",
        "flight-recorder",
        "a collective time-out leaves its flight record",
    )
    yield derived_variable(
        "TORCH_NCCL_DEBUG_INFO_PIPE_FILE",
        "{attempt}/flight_pipe_rank_",
        "flight-recorder",
        "a rank that hangs is asked for its flight record through this pipe",
    )


def parse_release(version: str) -> tuple[int, int] | None:
    """Major and minor number; None for what has none."""
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    return int(parts[0]), int(parts[1])
