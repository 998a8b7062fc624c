"""Where this pod meets the others, and through which of its interfaces it reaches them."""

from __future__ import annotations

import os
import socket
import time

from orchestrator.node_agent.base.agent_errors import ABSENT, AgentFault
from orchestrator.node_agent.facts.network import find_interfaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANY_PORT = 9  # no packet is sent: the kernel only chooses the way
POLL_S = 0.5


def await_interface(host: str, within_s: float) -> str:
    """The interface towards ``host``, whose name Kubernetes makes known once its pod has an
    address. Raises :class:`AgentFault` if it does not within ``within_s``.
    """
    interface = _interface_towards(host)
    if interface:
        return interface
    os.write(2, f"orchestrate: waiting for {host}, where the ranks meet\n".encode())
    deadline = time.monotonic() + within_s
    while not interface:
        if time.monotonic() >= deadline:
            what = f"{host}, where the ranks meet, has no address after {within_s:g} s"
            raise AgentFault(ABSENT, what + ": is that pod scheduled?")
        time.sleep(POLL_S)
        interface = _interface_towards(host)
    return interface


def _interface_towards(host: str) -> str:
    """``""`` where the name is not known yet, or no interface has the address."""
    try:
        found = socket.getaddrinfo(host, ANY_PORT, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return ""
    own = {_own_address(family, address) for family, _, _, _, address in found}
    for interface in find_interfaces():
        if own.intersection(interface["addresses"]):
            return str(interface["name"])
    return ""


def _own_address(family: int, address: tuple[Any, ...]) -> str:
    """What packets to ``address`` would come from; ``""`` where there is no way to it."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return ""
        return str(probe.getsockname()[0])
