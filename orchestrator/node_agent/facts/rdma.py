"""InfiniBand and RoCE adapters from sysfs: a port's state, rate, addresses and error counters."""

from __future__ import annotations

import os

from orchestrator.node_agent.base.sysfs import (
    link_target,
    list_names,
    parse_int,
    read_number,
    read_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_PORTS = 128
MAX_GIDS = 64
NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"
COUNTERS = {
    "counters": (
        "symbol_error",
        "link_error_recovery",
        "link_downed",
        "port_rcv_errors",
        "port_xmit_discards",
        "local_link_integrity_errors",
        "excessive_buffer_overrun_errors",
    ),
    "hw_counters": (
        "out_of_sequence",
        "packet_seq_err",
        "local_ack_timeout_err",
        "rnr_nak_retry_err",
        "roce_slow_restart",
    ),
}


def find_hcas(
    sys_class_infiniband: str = "/sys/class/infiniband", dev: str = "/dev"
) -> list[dict[str, Any]]:
    """One entry per port, from files such as ``mlx5_0/ports/1/{state,link_layer,rate}``."""
    hcas: list[dict[str, Any]] = []
    for name in list_names(sys_class_infiniband):
        adapter = os.path.join(sys_class_infiniband, name)
        ports = os.path.join(adapter, "ports")
        numbers = [port for port in list_names(ports) if parse_int(port) is not None]
        if numbers:
            common = {**_describe_adapter(adapter), **_device_files(adapter, dev)}
            hcas += [_describe_port(name, int(n), os.path.join(ports, n), common) for n in numbers]
    return hcas[:MAX_PORTS]


def _device_files(adapter: str, dev: str) -> dict[str, bool | None]:
    """Verbs need theirs to be opened; that of management datagrams is root's, and only looked for.

    The kernel names both below the adapter's device once their modules are loaded.
    """
    device, files = os.path.join(adapter, "device"), os.path.join(dev, "infiniband")
    verbs = [n for n in list_names(os.path.join(device, "infiniband_verbs")) if n[:6] == "uverbs"]
    managed = [n for n in list_names(os.path.join(device, "infiniband_mad")) if n[:4] == "umad"]
    opened = (os.access(os.path.join(files, name), os.R_OK | os.W_OK) for name in verbs)
    found = (os.path.exists(os.path.join(files, name)) for name in managed)
    seen = os.path.isdir(device)
    return {
        "uverbs": bool(verbs) and all(opened) if seen else None,
        "umad": bool(managed) and all(found) if seen else None,
    }


def _describe_adapter(path: str) -> dict[str, Any]:
    device = os.path.join(path, "device")
    node = read_number(os.path.join(device, "numa_node"))
    return {
        "firmware": read_text(os.path.join(path, "fw_ver")),
        "board": read_text(os.path.join(path, "board_id")),
        "pci": link_target(device),
        "numa_node": None if node is None or node < 0 else node,
        "netdev": ",".join(list_names(os.path.join(device, "net")))[:64],
    }


def _describe_port(name: str, port: int, path: str, common: dict[str, Any]) -> dict[str, Any]:
    # state reads like "4: ACTIVE", rate like "400 Gb/sec (4X NDR)".
    gids = _gids(path)
    netdev = next((gid["netdev"] for gid in gids if gid["netdev"]), common["netdev"])
    return {
        **common,
        "name": name,
        "port": port,
        "state": read_text(os.path.join(path, "state")).rpartition(":")[2].strip(),
        "physical_state": read_text(os.path.join(path, "phys_state")).rpartition(":")[2].strip(),
        "link_layer": read_text(os.path.join(path, "link_layer")),
        "rate_gbit": _leading_number(read_text(os.path.join(path, "rate"))),
        "netdev": netdev,
        "gids": gids,
        "errors": {**_errors(path), **_carrier_changes(path, netdev)},
    }


def _gids(port: str) -> list[dict[str, Any]]:
    """The entries in use. An entry without a type is of InfiniBand, or may not be read."""
    table = os.path.join(port, "gids")
    found = []
    for index in sorted(
        (name for name in list_names(table) if parse_int(name) is not None), key=int
    ):
        address = read_text(os.path.join(table, index))
        if address and address != NO_GID:
            attributes = os.path.join(port, "gid_attrs")
            found.append(
                {
                    "index": int(index),
                    "address": address,
                    "kind": read_text(os.path.join(attributes, "types", index)),
                    "netdev": read_text(os.path.join(attributes, "ndevs", index)),
                }
            )
    return found[:MAX_GIDS]


def _errors(port: str) -> dict[str, int]:
    counters = {}
    for folder, known in COUNTERS.items():
        for name in known:
            value = read_number(os.path.join(port, folder, name))
            if value is not None and value >= 0:
                counters[name] = value
    return counters


def _carrier_changes(port: str, netdev: str) -> dict[str, int]:
    """How often the port's interface lost or found its link, which stands below the device."""
    net = os.path.join(os.path.dirname(os.path.dirname(port)), "device", "net")
    value = read_number(os.path.join(net, netdev, "carrier_changes")) if netdev else None
    return {} if value is None or value < 0 else {"carrier_changes": value}


def _leading_number(text: str) -> float:
    try:
        return float(text.split(None, 1)[0])
    except (IndexError, ValueError):
        return 0.0
