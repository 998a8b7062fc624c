"""What one run was asked to do: the input of the plan and of the state machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.command import Text
from orchestrator.core.inventory import Cluster
from orchestrator.core.workload import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Deadlines in seconds, one per phase; ``run_s`` None lets the job run as long as it needs.

    ``silence_s``: a node whose link is broken for this long is lost. ``lease_s``: without news
    from the coordinator for this long, the node's supervisor ends the ranks by itself; None lets
    them go on until they are done. ``hang_s``: ranks that are silent for this long are looked at;
    None never looks. Ranks that report nothing through the kit only if ``hang_asked``. ``link_s``:
    links between nodes that stay broken for this long, while no rank makes progress, end the
    attempt; None never looks.
    """

    connect_s: float = 30.0
    probe_s: float = 30.0
    sync_s: float = 900.0
    prepare_s: float = 1800.0
    reach_s: float = 20.0
    fabric_s: float = 120.0
    launch_s: float = 30.0
    run_s: float | None = None
    grace_s: float = 10.0
    collect_s: float = 600.0
    clean_s: float = 60.0
    silence_s: float = 10.0
    lease_s: float | None = 60.0
    hang_s: float | None = 600.0
    link_s: float | None = 15.0
    hang_asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A selected cluster, a decided job, and how to run it. ``launcher`` "auto" lets the plan
    choose.

    ``env`` lies over what the inventory sets. ``ranks_per_node`` None = as the workload declares.
    ``code`` is the digest of the snapshot that travels; ``entry`` the script's path in it.
    ``exclusive`` keeps other runs off the machines altogether, not only off the GPUs. ``wait_s``:
    how long to queue for what another run holds; None does not queue. ``token`` tells this run from
    another one whose id somebody chose alike. ``fabric_probe``: try a collective before ranks that
    meet are launched; ``fabric_cache``: what an earlier run proved for the same nodes counts.
    ``launcher_options`` are passed on to launchers that take some.
    """

    run_id: str
    cluster: Cluster
    job: Job
    launcher: str = "auto"
    ranks_per_node: int | None = None
    budgets: Budgets = field(default_factory=Budgets)
    code: str = ""
    entry: str = ""
    env: Mapping[str, Text] = field(default_factory=dict)
    fail_on_degraded: bool = False
    exclusive: bool = False
    wait_s: float | None = None
    token: str = ""
    fabric_probe: bool = False
    fabric_cache: bool = True
    launcher_options: tuple[str, ...] = ()
