"""Plans whose ranks' environment was derived from machines that are described in a few words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.facts import Facts, Hca
from orchestrator.core.model.plan import Plan, Rendezvous, Variable
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import make_plan
from tests.core.world import facts, request
from tests.fixtures.machines import Machine, Port, build

HDR = "200 Gb/sec (4X HDR)"
STORAGE = Port(name="mlx5_8")  # of the same rate, on a root of its own


def planned(*found: Facts, asked: RunRequest | None = None) -> Plan:
    names = [facts.node for facts in found]
    rendezvous = Rendezvous(
        address="10.0.0.1", port=29500, interfaces=tuple((name, "eth0") for name in names)
    )
    findings = {
        facts.node: NodeFinding(facts=facts, interpreter="/bin/python", modules={"torch": "2.11.0"})
        for facts in found
    }
    made = make_plan(asked or request(*names), findings, {}, rendezvous)
    assert isinstance(made, Plan)
    return made


def settings(made: Plan, node: str) -> dict[str, str]:
    return {v.name: str(v.value) for v in made.node(node).env}


def reasons(made: Plan, node: str) -> dict[str, Variable]:
    return {v.name: v for v in made.node(node).left}


def pair(tmp_path: Path, first: Machine, second: Machine | None = None) -> Plan:
    other = second or replace(first, name="n2")
    return planned(build(tmp_path, first), build(tmp_path, other))


def here() -> Facts:
    ports = (
        Hca(name=name, port=1, state="ACTIVE", link_layer="InfiniBand")
        for name in ("mlx5_1", "mlx5_10")
    )
    return replace(facts("n1", gpus=1), hcas=tuple(ports))
