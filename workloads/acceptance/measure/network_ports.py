"""What the node's InfiniBand or RoCE ports can carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def active_ports(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every active port: device, link layer, GB/s in one direction. None are known without facts
    of the node.
    """
    return [
        {
            "device": port["name"],
            "link_layer": port["link_layer"],
            "gb_s": port["rate_gbit"] / 8,
        }
        for port in facts.get("hcas", ())
        if port["state"].upper().endswith("ACTIVE") and port["rate_gbit"]
    ]
