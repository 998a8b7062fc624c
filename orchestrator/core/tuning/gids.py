"""By which of its addresses an adapter is used. NCCL 2.21 and newer finds the right GID itself, on
each node; a fixed index is right on one node, until its next reboot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from orchestrator.core.model.facts import Gid, Hca
from orchestrator.core.model.plan import Variable
from orchestrator.core.tuning.variable_sources import derived_variable, untouched_variable

ROCE_V2 = "roce v2"


def usable_gids(hca: Hca) -> list[Gid]:
    """GIDs of RoCE v2 with an address that can be routed."""
    return [gid for gid in hca.gids if gid.kind.casefold() == ROCE_V2 and _gid_family(gid)]


def gid_treatment(ports: Sequence[Hca]) -> Variable:
    """What is to be set for ``ports``, or why nothing is."""
    index = "NCCL_IB_GID_INDEX"
    if not any(port.ethernet for port in ports):
        why = "InfiniBand: NCCL's own choice of the GID is right"
        return untouched_variable(index, "gid-infiniband", why)
    roce = [port for port in ports if port.ethernet]
    if all(not gid.kind for port in roce for gid in port.gids):
        return untouched_variable(
            index, "gid-unseen", "the kinds of the GIDs could not be read: left to NCCL"
        )
    if all("IPv4" in _gid_families(port) for port in roce):
        why = "RoCE v2 with IPv4 is present, which NCCL selects by default"
        return untouched_variable(index, "gid-roce-auto", why, _gid_evidence(roce))
    if all("IPv6" in _gid_families(port) for port in roce):
        why = "RoCE v2 GIDs are of IPv6 only, and NCCL looks for IPv4"
        return derived_variable(
            "NCCL_IB_ADDR_FAMILY", "AF_INET6", "gid-roce-ipv6", why, _gid_evidence(roce)
        )
    if not any(usable_gids(port) for port in roce) and all(_is_old_roce(port) for port in roce):
        why = "the ports speak RoCE v1 only, and NCCL looks for v2"
        return derived_variable(
            "NCCL_IB_ROCE_VERSION_NUM", "1", "gid-roce-v1", why, _gid_evidence(roce)
        )
    why = "the ports have no family of RoCE v2 addresses in common: see orchestrate doctor"
    return untouched_variable(index, "gid-roce-mixed", why, _gid_evidence(roce))


def _gid_families(port: Hca) -> set[str]:
    return {_gid_family(gid) for gid in usable_gids(port)}


def _is_old_roce(port: Hca) -> bool:
    return any("v1" in gid.kind.casefold() and _gid_family(gid) for gid in port.gids)


def _gid_family(gid: Gid) -> str:
    """``IPv4``, ``IPv6``; "" for an address that is good on its link only, or for none."""
    try:
        address = ipaddress.IPv6Address(gid.address)
    except ValueError:
        return ""
    if address.ipv4_mapped is not None:
        return "IPv4"
    return "" if address.is_link_local else "IPv6"


def _gid_evidence(ports: Sequence[Hca]) -> str:
    return "; ".join(
        f"{port.name}:{port.port} "
        + ", ".join(f"[{gid.index}] {gid.kind} {gid.address}" for gid in port.gids)
        for port in ports
    )
