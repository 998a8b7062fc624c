"""InfiniBand and RoCE: ports up and at their rate, addresses, and the way into GPU memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    Fleet,
    Judge,
    Needs,
    answer_each,
    fail_answer,
    unknown_answer,
    warn_answer,
)
from orchestrator.core.model.facts import Hca
from orchestrator.core.tuning.gids import usable_gids

# A link that fell often is loose; errors that were corrected are seldom alone.
MAX_DOWNED = 4
SIGNS = ("symbol_error", "link_error_recovery", "local_link_integrity_errors")


def _port_label(hca: Hca) -> str:
    return f"{hca.name}:{hca.port}"


def _per_port(judge: Callable[[Hca, Fleet], CheckAnswer]) -> Judge:
    def together(look: CheckedNode) -> CheckAnswer:
        return answer_each(
            "port", [(_port_label(hca), judge(hca, look.fleet)) for hca in look.facts.hcas]
        )

    return together


def _similar_ports(hca: Hca, others: Iterable[Hca]) -> list[Hca]:
    """Ports of the same kind of board and the same number: they are cabled alike."""
    return [o for o in others if (o.board, o.port) == (hca.board, hca.port)]


def _port_active(hca: Hca, fleet: Fleet) -> CheckAnswer:
    """A port that is down is a fault if most of its kind are up: many adapters have ports that
    nobody ever cabled.
    """
    if hca.active:
        return OK
    if hca.physical_state.casefold() == "linkup":
        return fail_answer(
            f"the link is up, but its state is {hca.state}: no subnet manager answers"
        )
    alike = _similar_ports(hca, fleet.hcas)
    up = sum(other.active for other in alike)
    if 2 * up > len(alike):
        return fail_answer(f"{hca.state}, while {up} of {len(alike)} ports of its kind are active")
    return NONE


def _port_rate(hca: Hca, fleet: Fleet) -> CheckAnswer:
    if not hca.active:
        return NONE
    if not hca.rate_gbit:
        return unknown_answer("its rate")
    best = max(other.rate_gbit for other in _similar_ports(hca, fleet.hcas) if other.active)
    if hca.rate_gbit < best:
        return fail_answer(f"{hca.rate_gbit:g} Gb/s, others of its kind {best:g}")
    return OK


def _port_errors(hca: Hca) -> CheckAnswer:
    if not hca.active:
        return NONE
    if not hca.errors:
        return unknown_answer("its error counters")
    seen = [f"{name} {hca.errors[name]}" for name in SIGNS if hca.errors.get(name)]
    if hca.errors.get("link_downed", 0) > MAX_DOWNED:
        seen.append(f"link_downed {hca.errors['link_downed']}")
    return warn_answer(", ".join(seen)) if seen else OK


def _port_gids(hca: Hca) -> CheckAnswer:
    if not (hca.active and hca.ethernet):
        return NONE
    if not hca.gids:
        return fail_answer("no GID: its interface has no address, or rdma-core is missing")
    if all(not gid.kind for gid in hca.gids):
        return unknown_answer("the kinds of its GIDs")
    return (
        OK if usable_gids(hca) else fail_answer("no RoCE v2 GID with an address that can be routed")
    )


def _gpu_direct(look: CheckedNode) -> CheckAnswer:
    if not look.facts.gpus or not any(hca.active for hca in look.facts.hcas):
        return NONE
    if look.facts.peermem or look.facts.dmabuf:
        return OK
    if look.facts.peermem is None or look.facts.dmabuf is None:
        return unknown_answer("whether adapters reach GPU memory")
    return fail_answer("nvidia_peermem is not loaded, and kernel and driver have no DMA-BUF for it")


def _device_files(hca: Hca) -> CheckAnswer:
    if not hca.active:
        return NONE
    if hca.uverbs is None:
        return unknown_answer("its device files")
    if not hca.uverbs:
        return fail_answer("no /dev/infiniband/uverbs of it may be opened: no RDMA")
    if hca.umad is False and not hca.ethernet:
        return warn_answer("no /dev/infiniband/umad of it: ibstat and perfquery see nothing")
    return OK


def _port_count(look: CheckedNode) -> CheckAnswer:
    """Nodes of one cluster have equally many ports, whatever their names are."""
    if len(look.fleet.facts) < 2:
        return NONE
    most, mine = max(len(other.hcas) for other in look.fleet.facts), len(look.facts.hcas)
    if not most:
        return NONE
    return OK if mine == most else fail_answer(f"{mine} ports, other nodes have {most}")


def _port_check(number: int, name: str, remedy: str, judge: Judge, needs: Needs) -> Check:
    return Check(id=f"OR-DOC-IB-{number:03}", name=name, remedy=remedy, judge=judge, needs=needs)


CHECKS = (
    _port_check(
        1,
        "ports up",
        "ibstat; reseat or replace the cable; is the switch port on and a subnet manager running?",
        _per_port(_port_active),
        Needs.ADAPTERS,
    ),
    _port_check(
        2,
        "port rate",
        "replace the cable, clean its ends; compare the switch port's speed setting",
        _per_port(_port_rate),
        Needs.ADAPTERS,
    ),
    _port_check(
        3,
        "port errors",
        "doctor --level 2min shows whether they grow; then reseat or replace the cable",
        _per_port(lambda hca, _: _port_errors(hca)),
        Needs.ADAPTERS,
    ),
    _port_check(
        4,
        "RoCE GIDs",
        "give the port's interface an IPv4 address; cma_roce_mode or the driver must offer RoCE v2",
        _per_port(lambda hca, _: _port_gids(hca)),
        Needs.ADAPTERS,
    ),
    _port_check(
        5,
        "GPU direct RDMA",
        "modprobe nvidia-peermem, or Linux 5.12 with the open kernel modules",
        _gpu_direct,
        Needs.ADAPTERS,
    ),
    _port_check(
        6,
        "port count",
        "lspci | grep -i mellanox on both: an adapter is missing or its driver is not loaded",
        _port_count,
        Needs.NOTHING,
    ),
    _port_check(
        7,
        "device files",
        "modprobe ib_uverbs ib_umad; in a container: --device /dev/infiniband",
        _per_port(lambda hca, _: _device_files(hca)),
        Needs.ADAPTERS,
    ),
)
