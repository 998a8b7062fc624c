"""Sockets between nodes, as NCCL and gloo use them."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_CONNECT = r"[Cc]onnect(?: to (?P<peer>[^ ]{1,80}))? (?:failed|returned).{0,60}"
_BRIDGE = (
    r"(?P<interface>(?:docker|veth|br-|virbr|cni|podman|lxc)[\w.-]{0,20}"
    r"|[\w.-]{1,20}(?=:(?:fe80:|169\.254\.))):(?P<address>[^ <]{1,60})"
)

RULES = (
    Rule(
        id="NCCL-NET-001",
        title="No network interface of that name",
        domain=Domain.FABRIC,
        cause="{who} has no network interface that NCCL_SOCKET_IFNAME{name} matches",
        remedy="unset NCCL_SOCKET_IFNAME, or derive it on each node from: ip route get PEER "
        "(=NAME is exact, NAME a prefix, ^NAME excludes; == is a typo)",
        advice=Advice.GIVE_UP,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "no socket interface found",
                r"no socket interface found(?:.{0,60}NCCL_SOCKET_IFNAME(?: set to|=)(?P<name> "
                r"?[^ ]{1,60}))?",
            ),
            sign("NET/Socket : no interface found"),
            sign("No IP interface found"),
            sign(
                "Unable to find address for",
                r"Unable to find (?:address|interface) for:? ?(?P<name> [^ ]{1,60})",
            ),
        ),
        defaults={"name": ""},
        references=("NCCL#1837", "NCCL#286", "marin#6940"),
    ),
    Rule(
        id="NCCL-NET-002",
        title="An interface taken for the network that others cannot reach",
        domain=Domain.FABRIC,
        cause="NCCL on {where} chose {interface} ({address}), which other nodes cannot reach",
        remedy="set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME to the interface of: ip route get "
        "PEER, or NCCL_SOCKET_IFNAME=^docker,veth,br-,virbr,cni,lo",
        role=LogRole.CONDITION,
        advice=Advice.RETRY,
        weight=75,
        signs=(
            sign("Bootstrap", rf"Bootstrap ?: Using (?:\[0\])?{_BRIDGE}"),
            sign("NET/Socket", rf"NET/Socket ?: Using \[0\]{_BRIDGE}"),
            sign("OOB ", rf"OOB {_BRIDGE}"),
        ),
        defaults={"interface": "a bridge", "address": "?"},
        references=("NCCL#913",),
    ),
    Rule(
        id="NCCL-NET-003",
        title="No route to another node",
        domain=Domain.FABRIC,
        cause="{who} has no route to {peer} (EHOSTUNREACH): a firewall rejects it, or a link is "
        "down",
        remedy="ip route get PEER and ping from this node; allow all TCP ports between the nodes",
        advice=Advice.LOWER_RUNG,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("No route to host", _CONNECT + "No route to host"),
            sign("No route to host", confidence=Confidence.LIKELY),
            sign("EHOSTUNREACH"),
        ),
        defaults={"peer": "another node"},
        references=("NCCL PR#1311", "NCCL#2157"),
    ),
    Rule(
        id="NCCL-NET-004",
        title="Another rank went away",
        domain=Domain.PROGRAM,
        cause="{who} lost {peer}: that rank ended first, and its own log says why",
        remedy="look at the log of the rank that ended first; NCCL before 2.27.3 also falls over "
        "port scanners",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=60,
        signs=(
            sign(
                "Connection closed by remote peer",
                r"Connection closed by remote peer(?: (?P<peer>[^ ]{1,80}))?",
            ),
            sign("remote process exited or there was a network error"),
            sign(
                "Connection reset by peer",
                r"NCCL WARN.{0,80}(?:recv|send) (?:from|to) (?P<peer>[^ ]{1,80}) failed.{0,4}: "
                r"Conn",
            ),
            sign("ncclRemoteError"),
        ),
        defaults={"peer": "another rank"},
        consequence="lost a connection to a rank that had gone",
        references=("NCCL#795", "NCCL#1232", "NCCL#914", "NCCL#1612"),
    ),
    Rule(
        id="NCCL-NET-005",
        title="Connection refused by another rank's node",
        domain=Domain.FABRIC,
        cause="{who} was refused by {peer}: nothing listens there any more, or a firewall rejects "
        "the port",
        remedy="see whether the rank at that address ended first; else allow all TCP ports "
        "between the nodes",
        role=LogRole.VAGUE,
        advice=Advice.LOWER_RUNG,
        confidence=Confidence.POSSIBLE,
        weight=60,
        signs=(sign("Connection refused", "NCCL WARN.{0,80}" + _CONNECT + "Connection refused"),),
        defaults={"peer": "another rank"},
        consequence="were refused a connection",
        references=("NCCL user guide: troubleshooting",),
    ),
    Rule(
        id="NCCL-NET-006",
        title="No answer from another rank's node",
        domain=Domain.FABRIC,
        cause="{who} got no answer from {peer}: a firewall drops the packets, or the address is "
        "not reachable from here",
        remedy="allow all TCP ports between the nodes; set NCCL_SOCKET_IFNAME to the interface "
        "of: ip route get PEER",
        advice=Advice.LOWER_RUNG,
        weight=70,
        signs=(
            sign("Connection timed out", "NCCL WARN.{0,80}" + _CONNECT + "Connection timed out"),
            sign(
                "Network is unreachable", "NCCL WARN.{0,80}" + _CONNECT + "Network is unreachable"
            ),
        ),
        defaults={"peer": "another rank"},
        references=("NCCL user guide: troubleshooting",),
    ),
    Rule(
        id="GLOO-NET-001",
        title="Gloo lost another rank",
        domain=Domain.PROGRAM,
        cause="{who} lost {peer} in a gloo collective: that rank ended or stopped first",
        remedy="look at the log of the rank that ended first",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=60,
        signs=(
            sign(
                "gloo",
                r"gloo.{0,80}Connection (?:closed|reset) by peer(?: \[(?P<peer>[^\]]{1,60})\])?",
            ),
            sign("gloo", r"gloo.{0,120}(?:Connection reset by peer|Broken pipe)"),
            sign("Timed out waiting ", r"Timed out waiting \d{1,12}ms for (?:recv|send) operation"),
            sign("Application timeout caused pair closure"),
        ),
        defaults={"peer": "another rank"},
        consequence="lost or timed out waiting for another rank in gloo",
        references=("gloo",),
    ),
    Rule(
        id="GLOO-NET-002",
        title="Gloo found no way to its peers",
        domain=Domain.FABRIC,
        cause="gloo on {where} could not connect to all ranks ({error})",
        remedy="set GLOO_SOCKET_IFNAME on each node to the interface of: ip route get PEER; the "
        "host name must not resolve to 127.0.0.1 on nodes",
        advice=Advice.RETRY,
        weight=65,
        signs=(
            sign(
                "connectFullMesh failed",
                r"Gloo connectFullMesh failed with (?P<error>.{1,160})",
            ),
            sign(
                "gloo",
                r"gloo.{0,120}(?P<error>Connect timeout \[[^\]]{1,60}\]|[Cc]onnect .{0,60}timed "
                r"out)",
            ),
            sign("unsupported gloo device", r"(?P<error>unsupported gloo device)"),
            sign(
                "ss1.ss_family == ss2.ss_family",
                error="addresses of different families: one IPv4, another IPv6",
            ),
        ),
        defaults={"error": "no reason given"},
        references=("gloo", "pytorch: GLOO_SOCKET_IFNAME"),
    ),
    Rule(
        id="GLOO-NET-003",
        title="A rank gave its loopback address to the others",
        domain=Domain.FABRIC,
        cause="{who} was told to reach another rank at {peer}, which is its own loopback address: "
        "that node's name resolves to loopback, and gloo took this",
        remedy="GLOO_SOCKET_IFNAME (vLLM: VLLM_HOST_IP) on each node, to the interface of: ip "
        "route "
        "get PEER; no line with 127.0.x.x for the host's name in /etc/hosts",
        advice=Advice.RETRY,
        weight=70,
        signs=(
            sign(
                "onnect",
                r"[Gg]loo.{0,160}onnect.{0,120}remote=\[(?P<peer>127\.0\.\d{1,3}\.\d{1,3})\]",
            ),
        ),
        defaults={"peer": "127.0.0.1"},
        references=("gloo", "pytorch: GLOO_SOCKET_IFNAME"),
    ),
    Rule(
        id="GLOO-NET-004",
        title="Gloo falls back to the loopback address",
        domain=Domain.FABRIC,
        cause="the name of {where} resolves to no address of its own, so that gloo uses loopback: "
        "ranks on other nodes cannot reach it",
        remedy="GLOO_SOCKET_IFNAME on each node; nothing on one node alone",
        role=LogRole.HARMLESS,
        advice=Advice.GO_ON,
        confidence=Confidence.POSSIBLE,
        weight=72,
        signs=(sign("Unable to resolve hostname to a (local) address"),),
        references=("pytorch: GLOO_SOCKET_IFNAME",),
    ),
    Rule(
        id="NCCL-NET-007",
        title="NCCL has no network of that name",
        domain=Domain.LAUNCH,
        cause="NCCL on {where} could not start the network that NCCL_NET or a plugin asks for "
        "({name})",
        remedy="unset NCCL_NET and NCCL_NET_PLUGIN, or install the plugin that they name on every "
        "node",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("NCCL WARN Error: network ", r"network (?P<name>\w{1,40}) not found"),
            sign("Failed to initialize any NET plugin"),
        ),
        defaults={"name": "none of them"},
        references=("NCCL user guide: NCCL_NET",),
    ),
    Rule(
        id="NCCL-NET-008",
        title="NCCL could not connect to another rank",
        domain=Domain.FABRIC,
        cause="{who} could not {verb} {peer} ({error}): an address of another network, or a "
        "link-local one",
        remedy="set NCCL_SOCKET_IFNAME on each node to the interface of: ip route get PEER; "
        "NCCL_SOCKET_FAMILY=AF_INET avoids link-local IPv6 addresses",
        advice=Advice.LOWER_RUNG,
        weight=68,
        signs=(
            sign(
                "Software caused connection abort",
                r"[Cc]onnect to (?P<peer>[^ ]{1,80}) failed : (?P<error>Software caused connection "
                r"abort)",
            ),
            sign(
                "Invalid argument",
                r"[Cc]onnect to (?P<peer>[^ ]{1,80}) failed : (?P<error>Inv\w{4})",
            ),
            sign(
                "Call to bind failed",
                r"bind failed ?: (?P<error>Cannot assign requested address)",
                verb="bind to",
                peer="the address that it chose",
            ),
            sign(
                "is neither AF_INET",
                r"address ?(?P<peer>\S{0,80}) with (?P<error>family \d{1,6} is neither AF_INET)",
            ),
        ),
        defaults={"peer": "another rank", "error": "refused", "verb": "connect to"},
        references=("NCCL#975",),
    ),
)
