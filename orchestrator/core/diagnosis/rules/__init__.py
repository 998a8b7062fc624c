"""Every rule that we know. A new one needs an id of its own and a folder of that name below
``tests/golden/diagnosis``.
"""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Rule
from orchestrator.core.diagnosis.rules import (
    building,
    collectives,
    containers,
    cuda,
    files,
    host,
    hub,
    infiniband,
    launchers,
    mpi,
    nccl,
    network,
    program,
    ray,
    rendezvous,
    servers,
    serving,
    signals,
    slurm,
    ssh,
    training,
    xid,
)

DOMAINS: dict[str, tuple[Rule, ...]] = {
    "InfiniBand and RoCE": infiniband.RULES,
    "Sockets": network.RULES,
    "Names and servers": servers.RULES,
    "NCCL": nccl.RULES,
    "Rendezvous": rendezvous.RULES,
    "Collectives": collectives.RULES,
    "Slurm": slurm.RULES,
    "MPI": mpi.RULES,
    "Launchers": launchers.RULES,
    "Launch over SSH": ssh.RULES,
    "Ray": ray.RULES,
    "Servers of models": serving.RULES,
    "Trainers": training.RULES,
    "CUDA": cuda.RULES,
    "Kernel (Xid)": xid.RULES,
    "Host": host.RULES,
    "Signals": signals.RULES,
    "Files and limits": files.RULES,
    "Containers and services": containers.RULES,
    "Builds and packages": building.RULES,
    "Models and data": hub.RULES,
    "Program": program.RULES,
}
RULES: tuple[Rule, ...] = tuple(rule for rules in DOMAINS.values() for rule in rules)
BY_ID: dict[str, Rule] = {rule.id: rule for rule in RULES}
