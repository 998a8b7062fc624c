"""GPUs by what is beside them: the PCI bus, their sensors, memory without a process, repeats."""

from __future__ import annotations

import re

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    CheckAnswer,
    CheckedNode,
    answer_each,
    fail_answer,
    unknown_answer,
    warn_answer,
    worst_answer,
)
from orchestrator.core.doctor.rules.gpus import (
    HARMLESS,
    NO_KERNEL_LOG,
    OF_PROGRAMS,
    gpu_check,
    per_gpu,
)
from orchestrator.core.model.facts import Facts, Gpu, Xid

GIB = 1 << 30
# A driver without the newer call counts about half a GiB of its own as used.
LEFT_OVER_BYTES = GIB
SMALL_MARGIN_C = 5
# Of HBM, where the driver gives none: that which it gives for an A100.
USUAL_LIMIT_C = 95
WITH_HBM = re.compile(r"\b(V100|A30|A100|H20|H100|H200|H800|GH200|B200|B300|GB200|GB300)\b")
# NVSentinel's rule: the same Xid five times in 24 hours on one GPU.
REPEATS = 5


def _count_on_bus(look: CheckedNode) -> CheckAnswer:
    """Part of a machine may have been given to a container or declared, which is no fault."""
    facts, declared = look.facts, look.subject.spec.gpus.count
    on_bus, known = facts.gpus_on_bus, len(facts.gpus) + len(facts.lost_gpus)
    if on_bus is None:
        return unknown_answer("the GPUs on the PCI bus")
    if not on_bus or on_bus <= known:
        return OK
    text = f"{on_bus} GPUs on the PCI bus, the driver shows {known}"
    if facts.container:
        return unknown_answer(f"{text}: the others may not be this container's")
    return warn_answer(text) if declared == known else fail_answer(text)


def _left_over(look: CheckedNode) -> CheckAnswer:
    return answer_each("GPU", [(gpu.index, _memory_of(gpu, look.facts)) for gpu in look.facts.gpus])


def _memory_of(gpu: Gpu, facts: Facts) -> CheckAnswer:
    if gpu.users or gpu.memory_used_bytes <= LEFT_OVER_BYTES:
        return OK
    text = f"{gpu.memory_used_bytes / GIB:.1f} GiB in use"
    if gpu.users_known is False:
        return unknown_answer(f"{text}, the driver does not say by whom")
    if facts.container:
        return unknown_answer(f"{text}, perhaps outside this container")
    return warn_answer(f"{text} without a process")


def _memory_heat(gpu: Gpu) -> CheckAnswer:
    now, most = gpu.memory_temperature_c, gpu.memory_temperature_max_c or USUAL_LIMIT_C
    if now is None:
        return unknown_answer("the memory's temperature") if WITH_HBM.search(gpu.name) else NONE
    text = f"memory at {now} C, its limit is {most} C"
    if now >= most:
        return fail_answer(text)
    return warn_answer(text) if now > most - SMALL_MARGIN_C else OK


def _heat_margin(gpu: Gpu) -> CheckAnswer:
    if gpu.margin_c is None:
        return unknown_answer("how far it is from slowing down")
    if gpu.margin_c <= 0:
        return fail_answer("as hot as its clocks are held back for")
    text = f"{gpu.margin_c} C below where clocks are held back"
    return warn_answer(text) if gpu.margin_c < SMALL_MARGIN_C else OK


def _repeated_xids(look: CheckedNode) -> CheckAnswer:
    """What a driver of the card's reports again and again is the card, and so is a program's error
    that only one of several GPUs has.
    """
    xids = look.facts.xids
    if xids is None:
        return unknown_answer(NO_KERNEL_LOG)
    if any(xid.in_a_day is None for xid in xids):
        return unknown_answer("when the Xids were")
    often = [xid for xid in xids if (xid.in_a_day or 0) >= REPEATS and xid.code not in HARMLESS]
    return worst_answer(_repeat_answer(xid, look.facts) for xid in often) if often else OK


def _repeat_answer(xid: Xid, facts: Facts) -> CheckAnswer:
    text = f"Xid {xid.code} at {xid.pci} {xid.in_a_day}x in 24 hours"
    if xid.code not in OF_PROGRAMS or xid.switch:
        return fail_answer(text)
    others = {other.pci for other in facts.xids or () if other.code == xid.code} - {xid.pci}
    if others or len(facts.gpus) < 2:
        return OK
    return warn_answer(f"{text}, on no other GPU: rather the card than a program")


CHECKS = (
    gpu_check(
        16,
        "GPUs on the bus",
        "dmesg | grep -i nvrm says why the driver left one out; reseat it or replace it",
        _count_on_bus,
    ),
    gpu_check(
        17,
        "memory left over",
        "fuser -v /dev/nvidia* as root shows who holds it; nvidia-smi -r as root frees it",
        _left_over,
    ),
    gpu_check(
        18,
        "memory temperature",
        "look at fans, air flow and inlet",
        per_gpu(_memory_heat),
    ),
    gpu_check(
        19,
        "thermal margin",
        "look at fans, air flow and inlet",
        per_gpu(_heat_margin),
    ),
    gpu_check(
        20,
        "Xid repeats",
        "drain the node; dcgmi diag -r 4 or NVIDIA's field diagnostic; replace the GPU",
        _repeated_xids,
    ),
)
