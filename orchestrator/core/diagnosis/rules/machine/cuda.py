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

RULES = (
    Rule(
        id="CUDA-INIT-001",
        title="The fabric manager is not running",
        domain=Domain.HARDWARE,
        cause="CUDA is not ready on {where} (error 802): the fabric manager is absent or "
        "stopped, or its version is not the driver's",
        remedy="install nvidia-fabricmanager of exactly the driver's version, start it, and wait "
        "for 'Completed' under Fabric in nvidia-smi -q",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign("system not yet initialized"),
            sign(
                "driver interface version",
                r"fabric manager .{0,80}don't match with driver version",
            ),
            sign("CUDA_ERROR_SYSTEM_NOT_READY"),
            sign("Error 802"),
        ),
        references=("pytorch#35710", "gpu-burn#133", "gpu-operator#1043"),
    ),
    Rule(
        id="CUDA-FM-001",
        title="A fabric manager where there is no NVSwitch",
        domain=Domain.HOST,
        cause="the fabric manager on {where} found no NVSwitch and ended; the node does "
        "not need it",
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
        cause="the driver on {where} is too old for the CUDA runtime (it supports CUDA {found})",
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
            sign("PTX was compiled with an unsupported toolchain"),
            sign("unsatisfied condition: cuda", r"unsatisfied condition: cuda ?>= ?[\d.]{1,6}"),
            sign("driver version is insufficient for CUDA runtime version"),
        ),
        defaults={"found": "of an older version"},
        references=("nccl-tests#12", "nccl-tests#98", "cuml#5961"),
    ),
    Rule(
        id="CUDA-DRV-002",
        title="The driver was updated under its library",
        domain=Domain.HOST,
        cause="the NVIDIA kernel module and library on {where} have different versions: the driver "
        "was updated without a reboot",
        remedy="reboot the node, or unload and load the nvidia modules while nothing uses the GPUs",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign("river/library version mismatch"),
            sign("unsupported display driver / cuda driver combination"),
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
        cause="the program on {where} holds no code for its GPU ({arch})",
        remedy="a torch wheel built for that GPU (CUDA 12.8 or newer for Blackwell; on AMD the "
        "ROCm version that lists its gfx number)",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign("no kernel image is available for execution"),
            sign("hipErrorNoBinaryForGpu", r"hipErrorNoBinaryForGpu: (?:Unable|Coud?n't|Couldn't)"),
            sign("HIP error: invalid device function"),
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
        signs=(
            sign("invalid device ordinal"),
            sign("specified on host", r"No slot '\d{1,4}' specified on host"),
        ),
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
            sign("busy or unavailable", r"(?P<detail>device\(s\) is/are busy or unavailable)"),
            sign("CUDA unknown error", r"(?P<detail>CUDA unknown error)"),
            sign(
                "communicate with the NVIDIA driver",
                r"(?P<detail>couldn't communicate with the NVIDIA driver)",
            ),
            sign("No devices were found", r"^(?P<detail>No devices were found)"),
            sign("CUDA_ERROR_NO_DEVICE", r"(?P<detail>CUDA_ERROR_NO_DEVICE)"),
            sign("no GPU detected", r"(?P<detail>no GPU detected)"),
            sign(
                "cuda driver library",
                r"(?P<detail>cuda driver library (?:init failure|failed).{0,40})",
            ),
            sign("No HIP GPUs are available", r"(?P<detail>No HIP GPUs are available)"),
            sign("failed call to cuInit", r"(?P<detail>failed call to cuInit.{0,60})"),
            sign("no GPU resources available", r"(?P<detail>no GPU resources available)"),
            sign(
                "ailed to initialize NVML",
                r"initialize NVML: (?P<detail>Insufficient Permissions|Driver Not Loaded)",
            ),
            sign(
                "on a CUDA device but torch.cuda.is_available() is False",
                r"(?P<detail>torch\.cuda\.is_available\(\) is False)",
            ),
        ),
        defaults={"detail": "the driver lost it"},
        references=("CUDA",),
    ),
    Rule(
        id="CUDA-DEV-003",
        title="The driver's library is not there",
        domain=Domain.LAUNCH,
        cause="{who} has no {library}, which belongs to the NVIDIA driver and not to CUDA: its "
        "container was started without GPUs, or the node has no driver",
        remedy="docker --gpus all, apptainer --nv, an image with the NVIDIA runtime; else "
        "nvidia-smi "
        "on the node itself",
        advice=Advice.EXCLUDE_NODE,
        weight=83,
        signs=(
            sign(
                "cannot open shared object file",
                r"(?P<library>libcuda\.so(?:\.1)?): cannot open shared object file",
            ),
            sign("libcuda.so cannot found", r"(?P<library>libcuda\.so)"),
        ),
        defaults={"library": "libcuda.so.1"},
        references=("NVIDIA driver", "Apptainer"),
    ),
    Rule(
        id="CUDA-ECC-001",
        title="Uncorrectable memory error of a GPU",
        domain=Domain.HARDWARE,
        cause="a GPU of {where} has an uncorrectable error in its memory",
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
        cause="an NVLink of {where} failed",
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
            sign("CUDA_ERROR_ILLEGAL_ADDRESS", r"(?P<detail>CUDA_ERROR_ILLEGAL_ADDRESS)"),
            sign("device-side assert triggered", r"(?P<detail>device-side assert)"),
            sign("misaligned address", r"CUDA error: (?P<detail>misaligned address)"),
        ),
        defaults={"detail": "CUDA error"},
        references=("NVIDIA: Xid errors",),
    ),
    Rule(
        id="CUDA-INDEX-001",
        title="An index is out of range on the GPU",
        domain=Domain.PROGRAM,
        cause="a kernel of {who} met an index outside of its table ({detail}): a token id beyond "
        "the "
        "vocabulary, or a label beyond the classes",
        remedy="compare the highest id of the data with the size of the embedding or of the last "
        "layer; on the CPU the same step names the tensor",
        weight=78,
        signs=(
            sign(
                "Assertion `",
                r"\.cu:\d{1,6}: .{1,200}Assertion `(?P<detail>(?:srcIndex < src|t >= 0 && t < n_c"
                r"|-sizes\[i\]|idx_dim >= 0|index >= -|ind >=? ?0|0 <= ).{0,80}?)[`'] failed",
            ),
        ),
        defaults={"detail": "see the line"},
        explains=("CUDA-ERR-001",),
        references=("torch: Indexing.cu", "torch: Loss.cu"),
    ),
    Rule(
        id="CUDA-CPU-001",
        title="torch was built without CUDA",
        domain=Domain.LAUNCH,
        cause="the {package} of {where} was built {how}",
        remedy="the wheel of PyTorch's index for the driver's CUDA, in the interpreter that runs "
        "the "
        "ranks: python -c 'import torch; print(torch.version.cuda)'",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign("Torch not compiled with CUDA enabled"),
            sign("Distributed package doesn't have NCCL"),
            sign("ProcessGroupNCCL is only supported with GPUs, no GPUs found"),
            # Its functions miss the library that only a build for CUDA loads.
            sign(
                "NameError: name '", frames=r"site-packages/bitsandbytes/", package="bitsandbytes"
            ),
            sign(
                "onfigured CUDA binary not found at",
                package="bitsandbytes",
                how="for other versions of CUDA than torch's, and lacks a library for that one",
            ),
        ),
        defaults={"package": "torch", "how": "without CUDA"},
        references=("pytorch",),
    ),
    Rule(
        id="CUDA-LIB-001",
        title="A CUDA library could not start",
        domain=Domain.HOST,
        cause="a CUDA library of {who} failed ({detail}): as a rule GPU memory was full, or its "
        "version does not fit",
        remedy="nvidia-smi at that moment; no second copy of the library in LD_LIBRARY_PATH; "
        "CUDA_LAUNCH_BLOCKING=1 names the operation",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        weight=62,
        signs=(
            sign("CUBLAS_STATUS_", r"(?P<detail>CUBLAS_STATUS_(?!ALLOC)\w{1,40})"),
            sign("CUDNN_STATUS_", r"(?P<detail>CUDNN_STATUS_\w{1,40})"),
            sign("CUSOLVER_STATUS_", r"(?P<detail>CUSOLVER_STATUS_\w{1,40})"),
        ),
        defaults={"detail": "not initialised"},
        references=("cuBLAS", "cuDNN"),
    ),
    Rule(
        id="CUDA-LIB-002",
        title="Two versions of a CUDA library are mixed",
        domain=Domain.LAUNCH,
        cause="{who} loaded parts of two versions of a CUDA library ({detail})",
        remedy="take system copies out of LD_LIBRARY_PATH: torch's wheels bring their own cuDNN "
        "and "
        "cuBLAS; ldd on the library shows which one is found",
        weight=76,
        signs=(
            sign(
                "undefined symbol",
                r"(?P<detail>lib(?:cudnn|cublas|cufft|cusparse|cusolver|nvrtc|nvJitLink)\w{0,20}"
                r"\.so[.\d]{0,12}): undefined symbol",
            ),
            sign(
                "incompatible with",
                r"(?P<detail>cuDNN version .{1,60}incompatib.{1,80})",
            ),
            sign(
                "but source was compiled with",
                r"(?P<detail>Loaded runtime [Cc]u\w{1,8} library: .{1,80}compiled with: ?"
                r"[\d.]{1,12})",
                confidence=Confidence.CERTAIN,
            ),
        ),
        defaults={"detail": "symbols do not match"},
        references=("cuDNN", "ld.so"),
    ),
    Rule(
        id="CUDA-ERR-002",
        title="A CUDA call failed",
        domain=Domain.HARDWARE,
        cause="a CUDA call of {who} failed ({detail})",
        remedy="the kernel's log of that node (dmesg -T) for Xid lines; CUDA_LAUNCH_BLOCKING=1 "
        "names the call",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=30,
        signs=(
            sign("Cuda Runtime (", r"Cuda Runtime \((?P<detail>[a-z][\w ]{2,80})\)"),
            sign("CUDA error: ", r"CUDA error: (?P<detail>[a-zA-Z][\w ,/()-]{2,100})"),
            sign("unspecified launch failure", r"(?P<detail>unspecified launch failure)"),
            sign("HIP error: ", r"(?P<detail>HIP error: [a-zA-Z][\w ,/()-]{2,100})"),
            sign("HSA_STATUS_ERROR", r"(?P<detail>HSA_STATUS_ERROR\w{0,60})"),
        ),
        defaults={"detail": "unknown"},
        references=("CUDA",),
    ),
)
