"""Which adapters carry collectives between nodes.

NCCL takes every active port on its own, also those that are there for storage, for management or
for SSH. A list is only set where something has to be kept out; it names adapters exactly (``=``),
because a bare ``mlx5_1`` is a prefix that ``mlx5_10`` matches, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.model.facts import Facts, Hca
from orchestrator.core.model.plan import Variable
from orchestrator.core.tuning.variable_sources import derived_variable, untouched_variable

NEAR, FAR = frozenset({"PIX", "PXB"}), frozenset({"PHB", "NODE", "SYS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The ports for collectives, and why each other one is kept out."""

    facts: Facts
    ports: tuple[Hca, ...]
    kept_out: tuple[tuple[Hca, str], ...]


def choose_ports(facts: Facts) -> Choice:
    """Step by step; a step that would keep everything out keeps nothing out."""
    ports: list[Hca] = []
    kept_out: list[tuple[Hca, str]] = []
    for hca in facts.hcas:
        if hca.active:
            ports.append(hca)
        else:
            kept_out.append((hca, hca.state.casefold() or "not active"))
    for step in (_of_the_fast_kind, _at_full_rate, _without_bonds, _without_ssh, _near_gpus):
        reasons = step(facts, ports)
        if 0 < len(reasons) < len(ports):
            kept_out += [(port, reasons[at]) for at, port in enumerate(ports) if at in reasons]
            ports = [port for at, port in enumerate(ports) if at not in reasons]
    return Choice(facts=facts, ports=tuple(ports), kept_out=tuple(kept_out))


# Each step: position in the list -> why that port is to be kept out.


def _of_the_fast_kind(facts: Facts, ports: Sequence[Hca]) -> dict[int, str]:
    """Of InfiniBand and Ethernet the one with more bandwidth in all."""
    del facts
    infiniband = sum(port.rate_gbit for port in ports if not port.ethernet)
    ethernet = sum(port.rate_gbit for port in ports if port.ethernet)
    takes_ethernet = ethernet > infiniband
    return {
        at: f"{port.link_layer}, while most bandwidth is on the other kind"
        for at, port in enumerate(ports)
        if port.ethernet is not takes_ethernet
    }


def _at_full_rate(facts: Facts, ports: Sequence[Hca]) -> dict[int, str]:
    del facts
    best = max((port.rate_gbit for port in ports), default=0.0)
    return {
        at: f"{port.rate_gbit:g} of {best:g} Gb/s"
        for at, port in enumerate(ports)
        if port.rate_gbit < best
    }


def _without_bonds(facts: Facts, ports: Sequence[Hca]) -> dict[int, str]:
    del facts
    return {at: "a bond" for at, port in enumerate(ports) if "bond" in port.name}


def _without_ssh(facts: Facts, ports: Sequence[Hca]) -> dict[int, str]:
    """The interface that SSH comes in by is for management, if there are others."""
    route = facts.route_address
    ours = {i.name for i in facts.interfaces if route and route in i.addresses}
    return {
        at: f"management: SSH comes in by {port.netdev}"
        for at, port in enumerate(ports)
        if port.ethernet and port.netdev in ours
    }


def _near_gpus(facts: Facts, ports: Sequence[Hca]) -> dict[int, str]:
    """Where adapters share PCIe switches with GPUs, those that share none are for storage. What a
    virtual machine shows of PCIe says nothing.
    """
    if facts.virtual_machine is None or facts.virtual_machine:
        return {}
    kinds = [nearest_gpu_path(facts, port) for port in ports]
    if not NEAR & set(kinds):
        return {}
    return {
        at: f"storage: no GPU is nearer than {kind}" for at, kind in enumerate(kinds) if kind in FAR
    }


def nearest_gpu_path(facts: Facts, port: Hca) -> str:
    """The shortest way from the port to any GPU of its node; "" = unknown."""
    order = ("PIX", "PXB", "PHB", "NODE", "SYS")
    kinds = [facts.path(f"gpu{gpu.index}", port.name) for gpu in facts.gpus]
    return min((kind for kind in kinds if kind in order), key=order.index, default="")


def hca_list(choice: Choice) -> Variable:
    """``NCCL_IB_HCA`` for this node, or why it is left alone."""
    ports = choice.ports
    if not ports:
        why = f"none of {len(choice.facts.hcas)} ports is active: NCCL uses sockets"
        return untouched_variable("NCCL_IB_HCA", "hca-none-active", why, _choice_evidence(choice))
    if not choice.kept_out:
        why = f"all {len(ports)} ports are active and equal: NCCL uses all of them by default"
        return untouched_variable("NCCL_IB_HCA", "hca-all-alike", why, _choice_evidence(choice))
    reasons = ", ".join(f"{port.name}:{port.port} ({why})" for port, why in choice.kept_out)
    return derived_variable(
        "NCCL_IB_HCA",
        "=" + ",".join(_adapter_names(choice)),
        "hca-exact-list",
        f"the ports for collectives, by exact names; left out: {reasons}",
        _choice_evidence(choice),
    )


def _adapter_names(choice: Choice) -> list[str]:
    """An adapter by its name, with the port where another active one of it is kept out."""
    split = {port.name for port, _ in choice.kept_out if port.active}
    named = {p.name if p.name not in split else f"{p.name}:{p.port}": None for p in choice.ports}
    return list(named)


def _choice_evidence(choice: Choice) -> str:
    return ", ".join(
        f"{hca.name}:{hca.port} {hca.state} {hca.link_layer} {hca.rate_gbit:g} Gb/s"
        for hca in choice.facts.hcas
    )
