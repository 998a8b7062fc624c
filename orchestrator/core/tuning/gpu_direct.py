"""How far apart GPU and adapter may be for direct access to GPU memory.

NCCL goes as far as PCIe switches (PXB) by itself. Farther is only asked for where that is the
nearest there is, the machine is a real one, and everything else that it needs was seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.model.facts import Facts, Hca
from orchestrator.core.model.plan import Variable
from orchestrator.core.tuning.variable_sources import derived_variable, untouched_variable

LEVEL = "NCCL_NET_GDR_LEVEL"
ORDER = ("PIX", "PXB", "PHB", "NODE", "SYS")
UNTRANSLATED = ("none", "identity")


def gdr_level(facts: Facts, ports: Sequence[Hca]) -> Variable:
    """What is to be set for ``ports``, or why nothing is."""
    if not (facts.peermem or facts.dmabuf):
        return _without_gpu_direct(facts)
    if facts.virtual_machine is None or facts.virtual_machine:
        why = "in a virtual machine PCIe is not what it seems: NCCL's default, or the cloud's file"
        return untouched_variable(
            LEVEL, "gdr-virtual", why, f"runs in {facts.virtual_machine or 'unknown'}"
        )
    kinds = [_nearest_port(facts, gpu.index, ports) for gpu in facts.gpus]
    evidence = _gpu_direct_evidence(facts, kinds)
    if "" in kinds:
        return untouched_variable(
            LEVEL, "gdr-unseen", "how GPUs and adapters are connected is unknown", evidence
        )
    farthest = max(kinds, key=ORDER.index)
    if ORDER.index(farthest) <= ORDER.index("PXB"):
        why = "every GPU shares PCIe switches with an adapter: NCCL's default (PXB) is right"
        return untouched_variable(LEVEL, "gdr-default", why, evidence)
    if set(kinds) == {"PHB"} and facts.p2p.iommu in UNTRANSLATED:
        why = "the host bridge is the nearest there is, and nothing translates in between"
        return derived_variable(LEVEL, "PHB", "gdr-host-bridge", why, evidence)
    why = f"the nearest adapter of a GPU is {farthest} away: no direct access is better than that"
    return untouched_variable(LEVEL, "gdr-far", why, evidence)


def _without_gpu_direct(facts: Facts) -> Variable:
    if facts.peermem is None or facts.dmabuf is None:
        return untouched_variable(
            LEVEL, "gdr-unseen", "whether adapters reach GPU memory is unknown"
        )
    why = "adapters cannot reach GPU memory: no nvidia_peermem, no DMA-BUF; NCCL copies by the host"
    return untouched_variable(LEVEL, "gdr-absent", why, "peermem not loaded, DMA-BUF not possible")


def _nearest_port(facts: Facts, gpu: int, ports: Sequence[Hca]) -> str:
    kinds = [facts.path(f"gpu{gpu}", port.name) for port in ports]
    return min((kind for kind in kinds if kind in ORDER), key=ORDER.index, default="")


def _gpu_direct_evidence(facts: Facts, kinds: Sequence[str]) -> str:
    way = facts.peermem or "DMA-BUF"
    nearest = ", ".join(
        f"gpu{gpu.index} {kind or '?'}" for gpu, kind in zip(facts.gpus, kinds, strict=True)
    )
    return f"{way}; IOMMU {facts.p2p.iommu or 'unknown'}; nearest adapter: {nearest}"
