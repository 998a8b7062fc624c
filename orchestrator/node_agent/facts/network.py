"""Interfaces and addresses (netlink), and the own address towards the coordinator."""

from __future__ import annotations

import _socket as socket  # the C part: the rest costs more time than all that is done here
import os
import sys

from orchestrator.node_agent.base.sysfs import parse_int, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h
NLMSG_DONE, NLMSG_ERROR = 3, 2
NLM_F_REQUEST_DUMP = 0x301
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
IFLA_IFNAME, IFLA_MTU, IFA_ADDRESS, IFA_LOCAL = 3, 4, 1, 2
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x8, 0x40
ADDRESS_BYTES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
MAX_DUMP_BYTES = 4 * 1024 * 1024
TIMEOUT_S = 5.0


def find_interfaces(sys_class_net: str = "/sys/class/net") -> list[dict[str, Any]]:
    """The interfaces of this network namespace. ``up``: enabled, and with a carrier."""
    links = dict(parse_links(_dump(RTM_GETLINK)))
    for index, address in parse_addresses(_dump(RTM_GETADDR)):
        if index in links:
            links[index]["addresses"].append(address)
    for link in links.values():
        folder = os.path.join(sys_class_net, link["name"])
        link["speed_mbit"] = max(0, parse_int(read_text(os.path.join(folder, "speed"))) or 0)
        # Another network namespace's sysfs may be mounted here: it knows nothing of this one.
        if os.path.isdir(folder):
            link["virtual"] = not os.path.exists(os.path.join(folder, "device"))
    return [links[index] for index in sorted(links)]


def _dump(kind: int) -> bytes:
    """All answers to a netlink dump request; ``b""`` where netlink is not allowed."""
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError:
        return b""
    try:
        netlink.settimeout(TIMEOUT_S)
        # nlmsghdr (length, type, flags, sequence, port) and a family byte padded to 4.
        words = ((20, 4), (kind, 2), (NLM_F_REQUEST_DUMP, 2), (1, 4), (0, 4), (0, 4))
        request = b"".join(value.to_bytes(size, sys.byteorder) for value, size in words)
        netlink.sendto(request, (0, 0))
        data = b""
        while len(data) < MAX_DUMP_BYTES:
            part = netlink.recv(65536)
            data += part
            if any(type_ in (NLMSG_DONE, NLMSG_ERROR) for type_, _ in _messages(part)):
                break
        return data
    except OSError:
        return b""
    finally:
        netlink.close()


def _number(data: bytes, at: int, size: int) -> int:
    """A number of the kernel's; the struct module takes longer to load than all of this."""
    return int.from_bytes(data[at : at + size], sys.byteorder)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 16 <= len(data):
        length, kind = _number(data, position, 4), _number(data, position + 4, 2)
        if length < 16:
            return
        yield kind, data[position + 16 : position + length]
        position += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    attributes = {}
    position = 0
    while position + 4 <= len(data):
        length, kind = _number(data, position, 2), _number(data, position + 2, 2)
        if length < 4:
            break
        attributes[kind & 0x3FFF] = data[position + 4 : position + length]
        position += (length + 3) & ~3
    return attributes


def parse_links(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, interface) for each RTM_NEWLINK message."""
    for kind, body in _messages(data):
        if kind != RTM_NEWLINK or len(body) < 16:
            continue
        index, flags = _number(body, 4, 4), _number(body, 8, 4)
        attributes = _attributes(body[16:])
        mtu = attributes.get(IFLA_MTU, b"")
        yield (
            index,
            {
                "name": attributes.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
                "up": bool(flags & IFF_UP and flags & IFF_RUNNING),
                "loopback": bool(flags & IFF_LOOPBACK),
                "addresses": [],
                "mtu": _number(mtu, 0, 4),
            },
        )


def parse_addresses(data: bytes) -> Iterator[tuple[int, str]]:
    """(interface index, own address) for each RTM_NEWADDR message."""
    for kind, body in _messages(data):
        if kind != RTM_NEWADDR or len(body) < 8:
            continue
        family = body[0]
        index = _number(body, 4, 4)
        attributes = _attributes(body[8:])
        packed = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS) or b""
        if family in ADDRESS_BYTES and len(packed) == ADDRESS_BYTES[family]:
            yield index, socket.inet_ntop(family, packed)


def route_address(towards: str | None) -> str:
    """Our own address as the coordinator reached it, else the one that routes ``towards`` it."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        return connection[2].partition("%")[0]
    if towards:
        family = socket.AF_INET6 if ":" in towards else socket.AF_INET
        probe = socket.socket(family, socket.SOCK_DGRAM)
        try:
            probe.connect((towards, 9))  # chooses a route; sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            pass
        finally:
            probe.close()
    return "127.0.0.1"
