"""NCCL beyond the network: set-up inside a node, versions, and errors without a reason."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

# What NCCL says at the end of its exceptions, behind the writer's prefix.
_LAST_ERROR = (
    r"Last error: ?\n(?:\[\w{1,20}\]:? ?|\([^)\n]{1,80}\) ?){0,3}(?P<detail>\S[^\n]{2,160})"
)

RULES = (
    Rule(
        id="NCCL-SYS-001",
        title="NCCL failed in a system call",
        domain=Domain.HOST,
        cause="a system call of NCCL failed on {where}: {detail}",
        remedy="run again with --env NCCL_DEBUG=INFO: the first NCCL WARN line names the call; a "
        "stale NCCL_GRAPH_FILE or NCCL_TOPO_FILE does this, too",
        role=LogRole.VAGUE,
        advice=Advice.LOWER_RUNG,
        confidence=Confidence.POSSIBLE,
        weight=30,
        signs=(
            sign("NCCL WARN Call to ", r"NCCL WARN (?P<detail>Call to \w{1,40} failed.{0,120})"),
            sign("NCCL WARN Error", r"NCCL WARN (?P<detail>Error:? \w.{1,160})"),
            sign("unhandled system error", around=_LAST_ERROR),
            sign("ncclSystemError", around=_LAST_ERROR),
            sign("unhandled system error"),
            sign("ncclSystemError"),
        ),
        defaults={"detail": "the line does not say which"},
        consequence="saw NCCL fail in a system call",
        references=("NCCL#1240", "NCCL#975"),
    ),
    Rule(
        id="NCCL-SYS-002",
        title="NCCL's graph or topology file does not fit",
        domain=Domain.LAUNCH,
        cause="NCCL on {where} could not use {path}, which NCCL_GRAPH_FILE or NCCL_TOPO_FILE names",
        remedy="unset NCCL_GRAPH_FILE and NCCL_TOPO_FILE unless the cloud's own image sets them",
        confidence=Confidence.CERTAIN,
        weight=75,
        signs=(
            sign("Could not open XML", r"Could not open XML \w{1,20} file (?P<path>[^ ]{1,200})"),
            sign(
                "NCCL WARN Attribute",
                r"NCCL WARN Attribute \w{1,40} of node \w{1,40} not found",
                path="the file",
            ),
            sign("XML graph", r"NCCL WARN (?:XML|Graph) .{0,80}graph"),
        ),
        defaults={"path": "a file"},
        references=("NCCL#1240",),
    ),
    Rule(
        id="NCCL-SYS-003",
        title="NCCL failed in a CUDA call",
        domain=Domain.HARDWARE,
        cause="a CUDA call of NCCL failed on {where} ({error})",
        remedy="see the first CUDA error and the kernel's log (Xid) of this node; "
        "--env NCCL_DEBUG=INFO names the call",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=35,
        signs=(
            sign("NCCL WARN Cuda failure", r"NCCL WARN Cuda failure ?(?P<error>.{1,80})?"),
            sign("unhandled cuda error"),
            sign("ncclUnhandledCudaError"),
        ),
        defaults={"error": "unhandled"},
        consequence="saw NCCL fail in a CUDA call",
        references=("NCCL user guide: troubleshooting",),
    ),
    Rule(
        id="NCCL-SYS-004",
        title="NCCL gave up",
        domain=Domain.LAUNCH,
        cause="NCCL failed on {where} ({error}){why}",
        remedy="run again with --env NCCL_DEBUG=INFO: the first NCCL WARN line tells",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=25,
        signs=(
            sign(
                "NCCL error in",
                r"NCCL error in: .{1,120}?, (?P<error>[a-z]{2,20}(?: [a-z]{2,20}){0,6})",
            ),
            sign("DistBackendError", r"(?<!c10::)DistBackendError"),
            sign("Test NCCL failure", r"Test NCCL failure .{0,60}'(?P<error>[^'/]{1,60})"),
            sign("HorovodInternalError", r"HorovodInternalError: (?P<error>.{1,80})"),
            sign("ncclInternalError"),
            sign("ncclInvalidUsage"),
            sign("ncclInvalidArgument"),
            # Whatever it warns of is the reason, where it gives up at once.
            sign(
                "NCCL WARN ",
                r"NCCL WARN (?P<error>(?!NET/|Call to |Cuda|Error|Failed to open)[A-Z].{8,160})",
                around=r" -> [1-7]\b|NCCL (?:error|failure)|nccl(?:Invalid|Internal|System)",
                why="",
            ),
        ),
        defaults={"error": "no reason given", "why": ", and the line does not say why"},
        consequence="saw NCCL fail",
        references=("NCCL user guide: troubleshooting",),
    ),
    Rule(
        id="NCCL-SHM-001",
        title="Shared memory is full",
        domain=Domain.HOST,
        cause="{who} could not get shared memory: /dev/shm is full, as in containers with the "
        "default of 64 MB, or stale segments fill it",
        remedy="docker --ipc=host or --shm-size=8g; df /dev/shm, and remove your own stale files "
        "there",
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign("No space left on device", r"/dev/shm.{0,200}No space left on device"),  # noqa: S108 - no file is made
            sign("No space left on device", r"No space left on device.{0,120}/dev/shm"),
            sign(
                "No space left on device",
                frames=r"SemLock|shared_memory\.py|_posixshmem|multiprocessing/reductions\.py"
                r"|resource_tracker|share_memory|_share_",
            ),
            sign("unable to write to file </torch_"),
            sign("unable to open shared memory object </torch_", confidence=Confidence.LIKELY),
            sign("unable to mmap", r"unable to mmap \d{1,15} bytes from file </torch_"),
            sign("unable to allocate shared memory(shm)"),
            sign("dataloader's workers are out of shared memory", confidence=Confidence.LIKELY),
            sign("shmget failed", r"shmget failed: No space left"),
            sign("posix_fallocate failed"),
            sign("unable to allocate shared memory"),
            sign("insufficient shared memory (shm)", confidence=Confidence.LIKELY),
            sign("Error while creating shared memory segment"),
        ),
        references=("NCCL#290", "NCCL#342", "NCCL#525"),
    ),
    Rule(
        id="NCCL-SHM-002",
        title="Shared memory of another rank is not there",
        domain=Domain.HOST,
        cause="{who} did not find the shared memory of another rank ({error}): the ranks of the "
        "node are in different containers, something empties /dev/shm, or the other rank ended",
        remedy="ranks of one node in one container, or docker --ipc=host for all; RemoveIPC=no in "
        "logind.conf; NCCL_SHM_DISABLE=1 does without",
        role=LogRole.FAILURE,
        weight=80,
        signs=(
            sign(
                "Error while attaching to shared memory segment",
                r"shared memory segment \S{1,80} .{0,30}error: (?P<error>.{1,60})",
            ),
            sign("Error while attaching to shared memory segment"),
        ),
        defaults={"error": "no reason given"},
        references=("NCCL#2190",),
    ),
    Rule(
        id="NCCL-GPU-001",
        title="Two ranks on one GPU",
        domain=Domain.LAUNCH,
        cause="ranks {first} and {second} use the same GPU ({gpu}): no set_device, a wrong "
        "LOCAL_RANK, or a visibility that hides the others",
        remedy="torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) before init_process_group; "
        "no CUDA_VISIBLE_DEVICES of your own",
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "Duplicate GPU detected",
                r"Duplicate GPU detected : rank (?P<first>\d{1,6}) and rank (?P<second>\d{1,6}) "
                r"both on CUDA device (?P<gpu>[\w:.]{1,20})",
            ),
            sign("Duplicate GPU detected"),
        ),
        defaults={"first": "?", "second": "?", "gpu": "unnamed"},
        references=("horovod#3929", "Megatron-LM#661"),
    ),
    Rule(
        id="NCCL-NVLS-001",
        title="NVLink SHARP (multicast) does not work",
        domain=Domain.HARDWARE,
        cause="NVLink multicast failed on {where} ({error}): the driver is older than this NCCL "
        "needs, the fabric manager was restarted without a reset of the GPUs, or "
        "/dev/nvidia-caps* is missing in the container",
        remedy="update the driver; reset the GPUs together with the fabric manager, or reboot; "
        "mount /dev/nvidia-caps-imex-channels; NCCL_NVLS_ENABLE=0 only until then",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign("nvls.cc", r"nvls\.cc:\d{1,5} NCCL WARN (?P<error>Cuda failure.{0,80})"),
            sign(
                "cuMulticast",
                r"(?:Failed to bind NVLink SHARP|cuMulticast\w{1,30}).{0,60}(?:fail|[Ee]rror)",
            ),
            sign("Failed to bind NVLink SHARP"),
        ),
        defaults={"error": "NVLink SHARP"},
        references=("NCCL#1788", "NCCL#976", "NCCL#1488", "nccl-tests#276", "pytorch#150852"),
    ),
    Rule(
        id="NCCL-VER-001",
        title="The wrong NCCL library is loaded",
        domain=Domain.LAUNCH,
        cause="{who} loads another NCCL than its torch was built with ({detail})",
        remedy="keep system copies of libnccl out of LD_LIBRARY_PATH and LD_PRELOAD; "
        "python -c 'import torch; print(torch.cuda.nccl.version())' on every node",
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign("undefined symbol: nccl", r"(?P<detail>undefined symbol: nccl\w{1,60})"),
            sign("libnccl", r"libnccl\.so[.\d]{0,12}.{0,80}(?P<detail>version `?NCCL.{1,60})"),
        ),
        defaults={"detail": "versions differ"},
        references=("NCCL#809", "pytorch#122571"),
    ),
    Rule(
        id="NCCL-VER-002",
        title="Ranks run different versions of NCCL",
        domain=Domain.LAUNCH,
        cause="ranks do not run the same NCCL: {versions}",
        remedy="the same environment on every node (python: {{workload: true}} builds one); "
        "orchestrate probe shows versions",
        confidence=Confidence.LIKELY,
        weight=75,
        signs=(
            sign(
                "Mismatched NCCL version",
                r"Mismatched NCCL version detected ?: (?P<versions>.{4,80})",
                confidence=Confidence.CERTAIN,
            ),
        ),
        defaults={"versions": "versions differ"},
        references=("NCCL#809",),
    ),
    Rule(
        id="NCCL-P2P-001",
        title="Too many GPUs connected peer to peer",
        domain=Domain.HARDWARE,
        cause="{who} ran out of peer mappings: a GPU on PCIe can map 8 peers, and more were asked "
        "for",
        remedy="NCCL_P2P_LEVEL=PXB, or at most 9 GPUs per process; a reboot frees leaked mappings",
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(sign("peer mapping resources exhausted"),),
        references=("NCCL#1874", "NCCL#51"),
    ),
    Rule(
        id="NCCL-P2P-002",
        title="GPUs cannot reach each other directly",
        domain=Domain.HARDWARE,
        cause="peer access between the GPUs of {where} is not supported: they are isolated by a "
        "container, a virtual machine or their place in the topology",
        remedy="nvidia-smi topo -m on the node; pass all GPUs of the machine through, or "
        "NCCL_P2P_DISABLE=1 at a cost in speed",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(sign("peer access is not supported between these two devices"),),
        references=("TensorRT-LLM#1498", "NCCL#360"),
    ),
    Rule(
        id="NCCL-P2P-003",
        title="ACS or the IOMMU redirects traffic between GPUs",
        domain=Domain.HARDWARE,
        cause="{who} does not move data between GPUs correctly ({detail}): PCIe ACS or the IOMMU "
        "redirects peer-to-peer traffic, which hangs, corrupts or slows it",
        remedy="bare metal: ACS off on PCIe switches, iommu=pt; virtual machines: ATS; meanwhile "
        "NCCL_P2P_DISABLE=1",
        advice=Advice.EXCLUDE_NODE,
        weight=70,
        signs=(
            sign(
                "DMAR:",
                r"DMAR: \[DMA (?:Read|Write)[^\]]{0,20}\] Request device "
                r"\[(?P<detail>[\w:.]{1,20})\]",
            ),
            sign("IO_PAGE_FAULT", r"AMD-Vi: Event logged \[IO_PAGE_FAULT"),
            sign("Out of bounds values", r"Out of bounds values : (?P<detail>[1-9]\d{0,9} FAILED)"),
        ),
        defaults={"detail": "an IOMMU fault"},
        references=("NCCL#2079", "NCCL#631", "NCCL#257", "NCCL#1086", "NCCL user guide"),
    ),
    Rule(
        id="NCCL-PERF-001",
        title="Slower collectives with another NCCL",
        domain=Domain.FABRIC,
        cause="bus bandwidth fell from {before} to {after} GB/s between NCCL {old} and {new}",
        remedy="pin NCCL {old}; compare NCCL_DEBUG=INFO of both (channels, NICs, NVLS), and "
        "report it",
        role=LogRole.SLOW,
        advice=Advice.GO_ON,
        confidence=Confidence.LIKELY,
        weight=60,
        defaults={"before": "?", "after": "?", "old": "?", "new": "?"},
        references=("NCCL#1876",),
    ),
)
