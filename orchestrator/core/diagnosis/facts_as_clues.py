"""What facts of nodes explain, without any line in a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.core.diagnosis.diagnosis_model import Clue, LogSource
from orchestrator.core.diagnosis.rules import BY_ID
from orchestrator.core.model.facts import Facts

LOCKABLE = 64 << 20  # below this no rank can register its buffers
IN_USE = 1 << 30  # what a GPU that nobody uses never holds


def from_facts(facts: Mapping[str, Facts]) -> Iterator[Clue]:
    """Conditions that probes of the nodes already showed."""
    for node, known in facts.items():
        yield from _memlock_clues(node, known)
        yield from _fabric_clues(node, known)
        yield from _occupied_clues(node, known)


def _memlock_clues(node: str, facts: Facts) -> Iterator[Clue]:
    limit = facts.memlock_bytes
    if facts.hcas and limit is not None and 0 <= limit < LOCKABLE:
        yield _condition_clue(
            "HOST-MEMLOCK-001", node, f"locked memory is limited to {limit} bytes"
        )


def _fabric_clues(node: str, facts: Facts) -> Iterator[Clue]:
    if facts.hcas and not any("ACTIVE" in hca.state.upper() for hca in facts.hcas):
        names = ", ".join(f"{hca.name}:{hca.port} {hca.state}" for hca in facts.hcas[:8])
        yield _condition_clue("NCCL-IB-006", node, f"no port is active: {names}")


def _occupied_clues(node: str, facts: Facts) -> Iterator[Clue]:
    for gpu in facts.gpus:
        if gpu.memory_used_bytes > IN_USE and gpu.users:
            pids = ", ".join(map(str, gpu.users[:4]))
            held = f"{gpu.memory_used_bytes / 2**30:.1f} GiB"
            text = f"before the start, GPU {gpu.index} held {held} for process {pids}"
            yield _condition_clue(
                "HOST-GPU-001", node, text, gpu=str(gpu.index), held=held, pids=pids
            )


def _condition_clue(rule: str, node: str, text: str, **told: str) -> Clue:
    source = LogSource(name=f"facts of {node}", node=node)
    return Clue(rule=BY_ID[rule], source=source, line=0, text=text, captures=told)
