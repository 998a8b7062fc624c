"""What an exported job tells its pods: the plan, read and turned into the launch of one share."""

from __future__ import annotations

import gzip
import json
import os

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION = 1
MAX_BYTES = 256 * 1024 * 1024
LEADER_ADDRESS = "LWS_LEADER_ADDRESS"
LEADER, INTERFACE = "{leader}", "{interface}"
# As the coordinator writes a value that it keeps to itself: the container has it from a Secret.
MASK = "***"
OWN = "ORCHESTRATE_"
SAMPLED_BY_RANKS = "profile"


class PodPlan:
    """``plan`` and ``request`` as the coordinator writes them; ``share``: that of this node."""

    def __init__(self, told: Mapping[str, Any], rank: int) -> None:
        if told.get("version") != VERSION:
            raise AgentFault(BAD_REQUEST, f"a plan of version {told.get('version')!r:.20}")
        try:
            self.plan: Mapping[str, Any] = told["plan"]
            self.request: Mapping[str, Any] = told["request"]
            shares: list[Mapping[str, Any]] = self.plan["nodes"]
            if not 0 <= rank < len(shares):
                what = (
                    f"this is pod {rank}, and the plan has {len(shares)}: apply all of the export"
                )
                raise AgentFault(BAD_REQUEST, what)
            self.share = shares[rank]
            self.workload: Mapping[str, Any] = self.request["job"]["workload"]
        except (KeyError, TypeError) as error:
            raise AgentFault(BAD_REQUEST, f"the plan lacks {error}") from error

    @property
    def meeting_point(self) -> str:
        """Whom the ranks of this pod meet; ``""`` where they need nobody of another pod."""
        together = self.plan["meets"] and len(self.plan["nodes"]) > 1
        return str(self.plan["rendezvous"]["address"]) if together else ""

    def launch_request(
        self, places: Mapping[str, str], environment: Mapping[str, str], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a coordinator would ask this node's agent for. ``places``: what this pod puts in the
        place of LEADER and INTERFACE; ``environment``: the container's.

        GPUs are not locked: Kubernetes gave them to this pod alone.
        """
        budgets = self.plan["budgets"]
        own_code = self.workload["own_code"]
        return {
            "run": self.plan["run_id"],
            "node": self.share["name"],
            "grace_s": budgets["grace_s"],
            "lease_s": None,
            "epoch": 0,
            "cwd": "{work}" if own_code else "{output}",
            "own_copy": own_code,
            "independent": False,
            "snapshot": self.plan["code"],
            "coordinator": "Kubernetes",
            "gpus": self.share["gpus"],
            "captures": self._captures(),
            "facts": dict(facts),
            "processes": [
                self._process(process, places, environment) for process in self.share["processes"]
            ],
        }

    def _captures(self) -> list[str]:
        kinds = [capture["kind"] for capture in self.request["captures"]]
        return [kind for kind in kinds if kind != SAMPLED_BY_RANKS]

    def _process(
        self,
        process: Mapping[str, Any],
        places: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> dict[str, Any]:
        """The container's variables count, as somebody may have edited or added some."""
        common = {v["name"]: environment.get(v["name"], v["value"]) for v in self.share["env"]}
        lacking = sorted(name for name, value in common.items() if value == MASK)
        if lacking:
            what = f"the container has no {', '.join(lacking)}: see the Secret in the manifest"
            raise AgentFault(BAD_REQUEST, what)
        inherited = {k: v for k, v in environment.items() if not k.startswith(OWN)}
        env = {**inherited, **common, **{v["name"]: v["value"] for v in process["env"]}}
        return {
            "label": process["label"],
            "rank": process["rank"],
            "argv": [_fill(word, places) for word in process["argv"]],
            "env": {name: _fill(value, places) for name, value in env.items()},
        }


def _fill(text: str, places: Mapping[str, str]) -> str:
    for placeholder, value in places.items():
        text = text.replace(placeholder, value)
    return text


def read_plan(folder: str, rank: int) -> PodPlan:
    """The plan in the ConfigMap at ``folder``. Raises :class:`AgentFault`."""
    path = os.path.join(folder, "run.json.gz")
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError("it is too large")
        told = json.loads(data)
    except (OSError, EOFError, ValueError) as error:
        raise AgentFault(BAD_REQUEST, f"the plan cannot be read: {path}: {error}") from error
    if not isinstance(told, dict):
        raise AgentFault(BAD_REQUEST, f"the plan cannot be read: {path} has none")
    return PodPlan(told, rank)
