"""CUDA, its driver, and the fabric manager."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_SIZE = r"[\d.]{1,12} ?[KMGT]i?B"

RULES = (
    Rule(
        id="CUDA-OOM-001",
        title="Out of GPU memory",
        domain=Domain.PROGRAM,
        cause="{who} ran out of GPU memory ({asked})",
        remedy="a smaller micro-batch with more accumulation, gradient checkpointing, or more "
        "GPUs; PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True against fragmentation",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign(
                "CUDA out of memory",
                rf"CUDA out of memory\.(?: (?P<asked>Tried to allocate {_SIZE}))?",
            ),
            sign("torch.OutOfMemoryError"),
            sign("OutOfMemoryError"),
            sign("CUDA error: out of memory"),
            sign("out of memory", r"(?:Cuda|CUDA|cuda) failure (?:\d{1,4} )?'out of memory'"),
            sign("CUBLAS_STATUS_ALLOC_FAILED"),
        ),
        defaults={"asked": "CUDA out of memory"},
        references=("pytorch#118369",),
    ),
    Rule(
        id="CUDA-OOM-002",
        title="Another process holds the GPU's memory",
        domain=Domain.HOST,
        cause="process {pid} holds {held} of the GPU that {who} wanted to use",
        remedy="nvidia-smi on the node; orchestrate clean ends what its own runs left behind, "
        "orchestrate exec -C CLUSTER -- ps -o user,lstart,args -p PID says whose it is",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign(
                "CUDA out of memory",
                rf"CUDA out of memory.{{0,300}}? Process (?P<pid>\d{{1,9}}) has (?P<held>{_SIZE}) "
                rf"memory in use",
            ),
        ),
        defaults={"pid": "?", "held": "memory"},
        references=("pytorch: torch.OutOfMemoryError",),
    ),
    Rule(
        id="CUDA-OOM-003",
        title="Not enough GPU memory is free for vLLM",
        domain=Domain.HOST,
        cause="the GPU of {who} has less free memory than vLLM was told to take ({detail})",
        remedy="end what else uses the GPU (nvidia-smi), or lower gpu_memory_utilization or "
        "max_model_len",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "is less than desired GPU memory utilization",
                r"Free memory on device (?P<detail>.{1,120}?) is less than desired GPU",
            ),
            sign("No available memory for the cache blocks"),
            sign("larger than the available KV cache memory"),
        ),
        defaults={"detail": "nothing is left for the KV cache"},
        references=("vLLM",),
    ),
    Rule(
        id="CUDA-INIT-001",
        title="The fabric manager is not running",
        domain=Domain.HARDWARE,
        cause="CUDA is not ready on {who} (error 802): the fabric manager is absent or stopped, or "
        "its version is not the driver's",
        remedy="install nvidia-fabricmanager of exactly the driver's version, start it, and wait "
        "for 'Completed' under Fabric in nvidia-smi -q",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign("system not yet initialized"),
            sign("CUDA_ERROR_SYSTEM_NOT_READY"),
            sign("Error 802"),
        ),
        references=("pytorch#35710", "gpu-burn#133", "gpu-operator#1043"),
    ),
    Rule(
        id="CUDA-FM-001",
        title="A fabric manager where there is no NVSwitch",
        domain=Domain.HOST,
        cause="the fabric manager on {who} found no NVSwitch and ended; the node does not need it",
        remedy="systemctl disable --now nvidia-fabricmanager on this node",
        role=LogRole.SLOW,
        advice=Advice.GO_ON,
        confidence=Confidence.CERTAIN,
        weight=60,
        signs=(sign("NV_WARN_NOTHING_TO_DO"),),
        references=("gpu-operator#610",),
    ),
    Rule(
        id="CUDA-DRV-001",
        title="The driver is too old for this CUDA",
        domain=Domain.HOST,
        cause="the driver on {who} is too old for the CUDA runtime (it supports CUDA {found})",
        remedy="a newer driver, the cuda-compat package, or a torch wheel built for an older CUDA",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign("CUDA driver version is insufficient"),
            sign(
                "driver on your system is too old",
                r"driver on your system is too old \(found version (?P<found>\d{1,9})\)",
            ),
            sign("forward compatibility was attempted on non supported HW"),
        ),
        defaults={"found": "of an older version"},
        references=("nccl-tests#12", "nccl-tests#98", "cuml#5961"),
    ),
    Rule(
        id="CUDA-DRV-002",
        title="The driver was updated under its library",
        domain=Domain.HOST,
        cause="the NVIDIA kernel module and library on {who} have different versions: the driver "
        "was updated without a reboot",
        remedy="reboot the node, or unload and load the nvidia modules while nothing uses the GPUs",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign("Driver/library version mismatch"),
            sign("API mismatch:", r"NVRM: API mismatch"),
            sign("NVMLError_LibRmVersionMismatch"),
            sign("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ),
        references=("NVIDIA driver",),
    ),
    Rule(
        id="CUDA-DRV-003",
        title="This build does not support the GPU",
        domain=Domain.LAUNCH,
        cause="the program on {who} holds no code for its GPU ({arch})",
        remedy="a torch wheel whose CUDA knows the GPU (CUDA 12.8 or newer for Blackwell)",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign("no kernel image is available for execution"),
            sign(
                "is not compatible with the current PyTorch installation",
                r"CUDA capability (?P<arch>sm_\d{2,4}) is not compatible",
            ),
        ),
        defaults={"arch": "another architecture"},
        references=("pytorch",),
    ),
    Rule(
        id="CUDA-DEV-001",
        title="More ranks than visible GPUs",
        domain=Domain.LAUNCH,
        cause="{who} asked for a GPU that it cannot see",
        remedy="one rank per GPU: --ranks-per-node, or take CUDA_VISIBLE_DEVICES away",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(sign("invalid device ordinal"),),
        references=("CUDA",),
    ),
    Rule(
        id="CUDA-DEV-002",
        title="No usable GPU",
        domain=Domain.HOST,
        cause="{who} sees no GPU that it may use ({detail})",
        remedy="nvidia-smi on the node: driver loaded, devices passed to the container, compute "
        "mode not exclusive while another process runs",
        advice=Advice.EXCLUDE_NODE,
        weight=75,
        signs=(
            sign("No CUDA GPUs are available", r"(?P<detail>No CUDA GPUs are available)"),
            sign("no CUDA-capable device", r"(?P<detail>no CUDA-capable device is detected)"),
            sign(
                "all CUDA-capable devices are busy",
                r"(?P<detail>all CUDA-capable devices are busy)",
            ),
            sign("Found no NVIDIA driver", r"(?P<detail>Found no NVIDIA driver)"),
            sign("Unable to determine the device handle for"),
        ),
        defaults={"detail": "the driver lost it"},
        references=("CUDA",),
    ),
    Rule(
        id="CUDA-ECC-001",
        title="Uncorrectable memory error of a GPU",
        domain=Domain.HARDWARE,
        cause="a GPU of {who} has an uncorrectable error in its memory",
        remedy="nvidia-smi -q -d ECC,ROW_REMAPPER; reset the GPU, and replace it if errors return",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign("uncorrectable ECC error encountered"),
            sign("CUDA_ERROR_ECC_UNCORRECTABLE"),
        ),
        references=("vllm#5222",),
    ),
    Rule(
        id="CUDA-NVL-001",
        title="Uncorrectable NVLink error",
        domain=Domain.HARDWARE,
        cause="an NVLink of {who} failed",
        remedy="nvidia-smi nvlink -e; reset all GPUs and the fabric manager, or reboot; replace on "
        "repeat",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(sign("uncorrectable NVLink error"), sign("CUDA_ERROR_NVLINK_UNCORRECTABLE")),
        references=("pytorch#58155", "NCCL#1562"),
    ),
    Rule(
        id="CUDA-ERR-001",
        title="The program made an invalid memory access on the GPU",
        domain=Domain.PROGRAM,
        cause="a kernel of {who} failed ({detail}): an index out of range, or a bug in a kernel",
        remedy="run once with CUDA_LAUNCH_BLOCKING=1, or under compute-sanitizer; check token ids "
        "and labels against the vocabulary",
        confidence=Confidence.LIKELY,
        weight=70,
        signs=(
            sign("an illegal memory access was encountered", r"(?P<detail>illegal memory access)"),
            sign("device-side assert triggered", r"(?P<detail>device-side assert)"),
            sign("misaligned address", r"CUDA error: (?P<detail>misaligned address)"),
            sign("unspecified launch failure", r"(?P<detail>unspecified launch failure)"),
        ),
        defaults={"detail": "CUDA error"},
        references=("NVIDIA: Xid errors",),
    ),
)
