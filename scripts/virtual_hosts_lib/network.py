"""The network of one set: a routing fabric in its own namespace, one cable per host.

The fabric routes between the hosts' cables and answers ARP for every address (proxy ARP), so that
the hosts see one flat subnet while every packet between two machines passes one FORWARD chain.
Faults are rules in that chain: packets vanish in the middle of the network, and neither end gets
an error, a FIN or a RST.  The machine itself carries one interface and no rule.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Sequence

from .processes import VirtualHostsError, run_command
from .state import Faults, Host, SlowLink, State

COORDINATOR_LINK = "coordinator"  # the fabric's end of the machine's cable
HOST_INTERFACE = "eth0"
SSH_PORT = 22
_RATE = re.compile(r"\d+(\.\d+)?[kmg]?bit")

Network = ipaddress.IPv4Network


def choose_subnet(network: str, count: int, taken: Iterable[Network]) -> Network:
    """The first free /24 of `network` (or all of a smaller one) for `count` hosts.

    Raises VirtualHostsError when nothing is free or `network` is too small.
    """
    try:
        whole = Network(network)
    except ValueError as error:
        raise VirtualHostsError(f"--network {network}: {error}") from error
    prefix = max(24, whole.prefixlen)
    if count + 2 > 2 ** (32 - prefix) - 2:
        raise VirtualHostsError(f"--network {network} has no room for {count} hosts (at most 252)")
    occupied = list(taken)
    for subnet in whole.subnets(new_prefix=prefix):
        if not any(subnet.overlaps(other) for other in occupied):
            return subnet
    raise VirtualHostsError(f"no free subnet in {network}: this machine routes them; use --network")


def networks_in_use() -> list[Network]:
    """Every network that this machine has an address in or a route to, but the default route."""
    routes = json.loads(run_command(["ip", "-4", "-j", "route", "show", "table", "all"]))
    names = (route["dst"] for route in routes if route["dst"] != "default")
    return [Network(name, strict=False) for name in names]


def host_address(subnet: Network, index: int) -> str:
    return str(subnet.network_address + index)


def coordinator_address(subnet: Network) -> str:
    return str(subnet.broadcast_address - 1)


def connect_coordinator(interface: str, subnet: Network, fabric_pid: int) -> None:
    """Lay the cable between this machine and the fabric, and set up the fabric's end."""
    address = coordinator_address(subnet)
    _ip_batch(
        f"link add {interface} type veth peer name {COORDINATOR_LINK} netns {fabric_pid}",
        f"link set {interface} addrgenmode none",
        f"addr add {address}/{subnet.prefixlen} dev {interface}",
        f"link set {interface} up",
    )
    router = subnet.broadcast_address - 2
    _ip_batch(
        "link set lo up",
        f"addr add {router}/32 dev lo",
        *_link_lines(COORDINATOR_LINK, address),
        within=fabric_pid,
    )


def remove_coordinator(interface: str) -> None:
    """Remove the machine's cable if it is there; it also goes by itself when the fabric ends."""
    try:
        run_command(["ip", "link", "del", interface])
    except VirtualHostsError as error:
        if "Cannot find device" not in str(error):
            raise


def connect_hosts(fabric_pid: int, hosts: Sequence[Host]) -> None:
    """Lay one cable per host, from the fabric into the host's network namespace."""
    lines: list[str] = []
    for host in hosts:
        peer = f"peer name {HOST_INTERFACE} netns {host.process.pid}"
        lines.append(f"link add {host.link} type veth {peer}")
        lines += _link_lines(host.link, host.address)
    _ip_batch(*lines, within=fabric_pid)


def disconnect_host(fabric_pid: int, host: Host) -> None:
    """Remove the host's cable at once: nothing that the host still sends gets out."""
    links = json.loads(run_command(_in_network(fabric_pid, ["ip", "-j", "link"])))
    if any(link["ifname"] == host.link for link in links):
        _ip_batch(f"link del {host.link}", within=fabric_pid)


def render_rules(state: State) -> str:
    """The fabric's whole filter table (iptables-restore format) for the faults in force."""
    address = {host.name: host.address for host in state.hosts}
    faults = state.faults
    rules = ["-A OUTPUT -p icmp -j DROP"]  # a dead host is silence, not "unreachable"
    for name in sorted(faults.unplugged):
        rules += [
            f"-A FORWARD -s {address[name]} -j DROP",
            f"-A FORWARD -d {address[name]} -j DROP",
        ]
    for name in sorted(faults.cut_ssh):
        to, back = f"-d {address[name]} -p tcp --dport", f"-s {address[name]} -p tcp --sport"
        rules += [f"-A FORWARD {to} {SSH_PORT} -j DROP", f"-A FORWARD {back} {SSH_PORT} -j DROP"]
    rules += _cut_rules(state, address)
    for name, link in sorted(faults.slow_links.items()):
        if link.loss:
            chance = f"-m statistic --mode random --probability {link.loss:.6f} -j DROP"
            rules += [f"-A FORWARD {way} {address[name]} {chance}" for way in ("-s", "-d")]
    return "\n".join(
        ["*filter", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", *rules, "COMMIT\n"]
    )


def apply_rules(state: State) -> None:
    """Replace the fabric's filter table in one step."""
    command = _in_network(state.fabric.pid, ["iptables-restore"])
    run_command(command, stdin=render_rules(state))


def check_link(link: SlowLink) -> None:
    """Raises VirtualHostsError for a limit that means nothing."""
    if link.rate is not None and not _RATE.fullmatch(link.rate):
        raise VirtualHostsError(f"--rate {link.rate}: expected a number and kbit, mbit or gbit")
    if not 0 <= link.loss < 1 or not 0 <= link.delay_ms <= 60_000:
        raise VirtualHostsError("--loss must be in [0 %, 100 %), --delay in [0 ms, 60 s]")
    if link == SlowLink():
        raise VirtualHostsError("slow-link needs at least one of --rate, --delay, --loss")


def shape_link(fabric_pid: int, host: Host, link: SlowLink | None) -> None:
    """Limit both ends of the host's cable (None lifts the limits); loss is a rule, not a queue."""
    ends = ((fabric_pid, host.link), (host.process.pid, HOST_INTERFACE))
    for pid, interface in ends:
        _clear_queue(pid, interface)
        if link is not None and (link.rate or link.delay_ms):
            _add_queue(pid, interface, link)


def involves(faults: Faults, name: str) -> set[tuple[str, str]]:
    return {pair for pair in faults.cut_pairs if name in pair}


def _cut_rules(state: State, address: dict[str, str]) -> list[str]:
    pairs = state.faults.cut_pairs
    if pairs and pairs == state.all_pairs():  # one rule instead of n(n - 1)
        return [f"-A FORWARD ! -s {state.coordinator} ! -d {state.coordinator} -j DROP"]
    ways = (way for a, b in sorted(pairs) for way in ((a, b), (b, a)))
    return [f"-A FORWARD -s {address[a]} -d {address[b]} -j DROP" for a, b in ways]


def _link_lines(link: str, address: str) -> list[str]:
    """Set up the fabric's end of one cable; the kernel would delay proxy ARP by up to 0.8 s."""
    return [
        f"link set {link} up",
        f"ntable change name arp_cache dev {link} proxy_delay 0",
        f"route add {address}/32 dev {link}",
    ]


def _clear_queue(pid: int, interface: str) -> None:
    show = _in_network(pid, ["tc", "-j", "qdisc", "show", "dev", interface])
    kinds = {queue["kind"] for queue in json.loads(run_command(show) or "[]")}
    if kinds & {"tbf", "netem"}:
        run_command(_in_network(pid, ["tc", "qdisc", "del", "dev", interface, "root"]))


def _add_queue(pid: int, interface: str, link: SlowLink) -> None:
    if link.delay_ms:
        queue = ["netem", "delay", f"{link.delay_ms}ms", "limit", "10000"]
        queue += ["rate", link.rate] if link.rate else []
    else:
        queue = ["tbf", "rate", link.rate or "", "burst", "16kb", "latency", "400ms"]
    try:
        run_command(_in_network(pid, ["tc", "qdisc", "add", "dev", interface, "root", *queue]))
    except VirtualHostsError as error:
        if "qdisc kind is unknown" not in str(error):
            raise
        raise VirtualHostsError(
            f"this kernel has no {queue[0]} queue (CONFIG_NET_SCH_{queue[0].upper()}):"
            f" --delay needs netem, --rate alone needs tbf, --loss needs neither"
        ) from error


def _ip_batch(*lines: str, within: int | None = None) -> None:
    argv = ["ip", "-batch", "-"]
    argv = argv if within is None else _in_network(within, argv)
    run_command(argv, stdin="\n".join(lines) + "\n")


def _in_network(pid: int, argv: Sequence[str]) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *argv]
