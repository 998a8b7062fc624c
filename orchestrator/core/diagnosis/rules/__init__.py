"""Every rule that we know. A new one needs an id of its own and a folder of that name below
``tests/golden/diagnosis``.
"""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Rule
from orchestrator.core.diagnosis.rules import (
    collectives,
    cuda,
    host,
    infiniband,
    nccl,
    network,
    program,
    rendezvous,
    xid,
)

DOMAINS: dict[str, tuple[Rule, ...]] = {
    "InfiniBand and RoCE": infiniband.RULES,
    "Sockets": network.RULES,
    "NCCL": nccl.RULES,
    "Rendezvous": rendezvous.RULES,
    "Collectives and launchers": collectives.RULES,
    "CUDA": cuda.RULES,
    "Kernel (Xid)": xid.RULES,
    "Host": host.RULES,
    "Program": program.RULES,
}
RULES: tuple[Rule, ...] = tuple(rule for rules in DOMAINS.values() for rule in rules)
BY_ID: dict[str, Rule] = {rule.id: rule for rule in RULES}
