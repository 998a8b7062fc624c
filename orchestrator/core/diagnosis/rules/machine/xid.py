"""What the NVIDIA driver writes into the kernel's log."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    Sign,
    sign,
)

_DOC = "NVIDIA: Xid errors"


def _xid_signs(*numbers: int) -> tuple[Sign, ...]:
    """``NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, ...`` for these numbers."""
    which = "|".join(map(str, numbers))
    return (
        sign("Xid (", rf"NVRM: Xid \((?P<gpu>[^)]{{1,40}})\): (?P<number>{which})\b"),
        sign("Xid", rf"\bXid[ =:]{{1,3}}(?P<number>{which})\b"),
    )


_DEFAULTS = {"gpu": "not named", "number": "?"}

RULES = (
    Rule(
        id="XID-NVLINK-001",
        title="NVLink fault (Xid 74, 145)",
        domain=Domain.HARDWARE,
        cause="the driver on {where} reports an NVLink fault: Xid {number}, GPU {gpu}",
        remedy="drain the node, reset all its GPUs and the fabric manager, reboot; replace on "
        "repeat",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=_xid_signs(74, 144, 145, 146, 147, 148, 149, 150),
        defaults=_DEFAULTS,
        references=("open-gpu-kernel-modules#1355", "pytorch#58155", "NCCL#1562"),
    ),
    Rule(
        id="XID-BUS-001",
        title="A GPU fell off the bus (Xid 79)",
        domain=Domain.HARDWARE,
        cause="GPU {gpu} of {where} fell off the bus: power, heat, seating or BIOS",
        remedy="drain the node and cut its power (a warm reboot does not help); reseat; replace on "
        "repeat",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=95,
        signs=(
            sign("Xid (", r"NVRM: Xid \((?P<gpu>[^)]{1,40})\): 79\b"),
            sign("Xid", r"\bXid[ =:]{1,3}79\b"),
            sign("fallen off the bus", r"GPU (?P<gpu>[\w:.]{4,20}): GPU has fallen off the bus"),
            sign("fallen off the bus", around=r"NVIDIA GPU (?P<gpu>[\da-fA-F:.]{7,20})"),
            sign("fallen off the bus"),
            sign("GPU is lost", r"GPU ?(?P<gpu>[\w:.]{4,20})?:? .{0,20}GPU is lost"),
            sign("GPU_IS_LOST"),
            sign("GPU lost from the bus"),
            sign("NVML: GPU is lost"),
        ),
        defaults={"gpu": "not named"},
        explains=("HOST-PCIE-002",),
        references=("open-gpu-kernel-modules#507", "open-gpu-kernel-modules#900", "NVSentinel#155"),
    ),
    Rule(
        id="XID-ECC-001",
        title="Uncontained memory error of a GPU (Xid 48, 95)",
        domain=Domain.HARDWARE,
        cause="GPU {gpu} of {where} has a double-bit or uncontained memory error (Xid {number})",
        remedy="reset the GPU now, run dcgmi diag -r 3, replace it if the diagnosis fails",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=92,
        signs=_xid_signs(48, 95),
        defaults=_DEFAULTS,
        references=(_DOC,),
    ),
    Rule(
        id="XID-ROW-001",
        title="A row of GPU memory waits to be remapped (Xid 63)",
        domain=Domain.HARDWARE,
        cause="GPU {gpu} of {where} marked a row of its memory for remapping (Xid {number})",
        remedy="reset the GPU when nothing runs on it; nvidia-smi -q -d ROW_REMAPPER",
        role=LogRole.CONDITION,
        advice=Advice.RETRY,
        weight=70,
        signs=_xid_signs(63),
        defaults=_DEFAULTS,
        references=("NVIDIA: memory error management",),
    ),
    Rule(
        id="XID-ROW-002",
        title="GPU memory could not be remapped (Xid 64)",
        domain=Domain.HARDWARE,
        cause="GPU {gpu} of {where} could not remap a faulty row of its memory (Xid {number})",
        remedy="replace the GPU (RMA); until then exclude the node",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            *_xid_signs(64),
            # Of nvidia-smi -q, which gives no Xid.
            sign(
                "Remapping Failure Occurred", r"Remapping Failure Occurred {1,20}: Yes", number="64"
            ),
        ),
        defaults=_DEFAULTS,
        references=("NVIDIA: memory error management",),
    ),
    Rule(
        id="XID-ECC-002",
        title="Contained memory error of a GPU (Xid 94)",
        domain=Domain.HARDWARE,
        cause="GPU {gpu} of {where} had a memory error that ended one process (Xid {number})",
        remedy="start again; reset the GPU soon; replace it when nvidia-smi -q shows an SRAM "
        "threshold exceeded",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=_xid_signs(94),
        defaults=_DEFAULTS,
        references=(_DOC, "vllm#5222"),
    ),
    Rule(
        id="XID-APP-001",
        title="The program faulted on the GPU (Xid 13, 31, 43)",
        domain=Domain.PROGRAM,
        cause="the program on {where} made an invalid access on GPU {gpu} (Xid {number})",
        remedy="compute-sanitizer, or CUDA_LAUNCH_BLOCKING=1; suspect the GPU only when other "
        "programs fail on it, too",
        role=LogRole.CONDITION,
        weight=65,
        signs=_xid_signs(13, 31, 43),
        defaults=_DEFAULTS,
        references=(_DOC,),
    ),
    Rule(
        id="XID-GSP-001",
        title="The GPU's firmware does not answer (Xid 119, 120)",
        domain=Domain.HARDWARE,
        cause="the firmware (GSP) of GPU {gpu} on {where} stopped answering (Xid {number})",
        remedy="reset the GPU or reboot; update the driver",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=_xid_signs(119, 120),
        defaults=_DEFAULTS,
        references=("Azure NHC",),
    ),
    Rule(
        id="XID-OTHER-001",
        title="The driver reports a fault (Xid)",
        domain=Domain.HARDWARE,
        cause="the driver on {where} reports Xid {number} for GPU {gpu}",
        remedy="look the number up in NVIDIA's list of Xid errors",
        role=LogRole.CONDITION,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=40,
        signs=(sign("Xid (", r"NVRM: Xid \((?P<gpu>[^)]{1,40})\): (?P<number>(?!45\b)\d{1,4})"),),
        defaults=_DEFAULTS,
        explains=("CUDA-ERR-002",),
        references=(_DOC,),
    ),
    Rule(
        id="XID-END-001",
        title="The driver tidied up behind an ended process (Xid 45)",
        domain=Domain.PROGRAM,
        cause="the driver on {where} cleaned up behind a process that had ended (Xid {number}, "
        "GPU {gpu})",
        remedy="look for what ended the process",
        role=LogRole.STOPPED,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=50,
        signs=_xid_signs(45),
        defaults=_DEFAULTS,
        consequence="were cleaned up by the driver",
        references=(_DOC,),
    ),
    Rule(
        id="XID-INIT-001",
        title="The driver could not initialise a GPU",
        domain=Domain.HARDWARE,
        cause="the driver on {where} could not initialise GPU {gpu}",
        remedy="reboot the node; if it returns, reseat or replace the GPU, and check the firmware "
        "and the BIOS (above 4G decoding)",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign("RmInitAdapter failed", r"GPU (?P<gpu>[\w:.]{4,20}): RmInitAdapter failed"),
            sign("RmInitAdapter failed"),
        ),
        defaults={"gpu": "not named"},
        references=("NVIDIA driver",),
    ),
    Rule(
        id="XID-SW-001",
        title="An NVSwitch reports a fatal fault (SXid)",
        domain=Domain.HARDWARE,
        cause="an NVSwitch of {where} reports a fatal fault: SXid {number}, {gpu}",
        remedy="reset all GPUs and the fabric manager, or reboot; exclude the node on repeat",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=91,
        signs=(sign("SXid (", r"SXid \((?P<gpu>[^)]{1,40})\): (?P<number>\d{4,6}), Fatal"),),
        defaults=_DEFAULTS,
        references=("NVIDIA: fabric manager guide",),
    ),
)
