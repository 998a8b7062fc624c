"""Servers of models: vLLM, SGLang, TensorRT-LLM, text-generation-inference."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

# A line that speaks of one of these is about data, whatever else it names.
_NO_MODEL = r".{0,200}(?i:batch|sequence|samples|rows)"

RULES = (
    Rule(
        id="SERVE-KV-001",
        title="The KV cache does not fit into GPU memory",
        domain=Domain.PROGRAM,
        cause="the model on {where} needs more KV cache than its GPUs have memory left for "
        "({detail})",
        remedy="a smaller maximum length (--max-model-len, --context-length), more GPUs "
        "(tensor parallel), or a larger share (--gpu-memory-utilization, --mem-fraction-static)",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(
            sign(
                "larger than the available KV cache memory",
                r"(?P<detail>[\d.]{1,12} ?[KMG]i?B KV cache is needed, which is larger than the "
                r"available KV cache memory \([\d.]{1,12} ?[KMG]i?B\))",
            ),
            sign("larger than the available KV cache memory"),
            sign(
                "number of tokens that can be stored in KV cache",
                r"(?P<detail>max seq len \(\d{1,12}\) is larger than the maximum number of tokens "
                r"that can be stored in KV cache \(\d{1,12}\))",
            ),
            sign("No available memory for the cache blocks"),
            sign(
                "Not enough memory. Please try to",
                r"(?P<detail>Not enough memory\. Please try to \w{1,20} --mem-fraction-static)",
            ),
        ),
        defaults={"detail": "nothing is left for it"},
        references=("vLLM", "SGLang"),
    ),
    Rule(
        id="SERVE-GPUS-001",
        title="More GPUs asked for than there are",
        domain=Domain.LAUNCH,
        cause="{who} was asked for more GPUs than it can use ({detail})",
        remedy="--tensor-parallel-size times --pipeline-parallel-size must not exceed the GPUs of "
        "the cluster; ray status shows whether every node has joined",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign(
                "The number of required GPUs exceeds",
                r"(?P<detail>number of required GPUs exceeds .{1,100})",
            ),
            sign(
                "exceeds available GPUs",
                r"(?P<detail>parallel size \(\d{1,5}\) exceeds available GPUs \(\d{1,5}\))",
            ),
            sign(
                "Ray does not allocate any GPUs on the driver node",
                r"(?P<detail>Ray does not allocate any GPUs on the driver node)",
            ),
            sign(
                "Current node has no GPU available",
                r"(?P<detail>Current node has no GPU available)",
            ),
            sign(
                "Number of GPUs per node",
                r"(?P<detail>Number of GPUs per node \d{1,4} must be at least as large as TP "
                r".{1,30})",
            ),
            sign(
                "World size",
                r"(?P<detail>World size \(\d{1,5}\) is larger than the number of available GPUs "
                r"\(\d{1,5}\))",
            ),
        ),
        defaults={"detail": "too many"},
        references=("vLLM",),
    ),
    Rule(
        id="SERVE-RANKS-001",
        title="An engine built for another number of ranks",
        domain=Domain.LAUNCH,
        cause="the engine that {who} serves was built for another number of ranks than were "
        "started ({detail})",
        remedy="as many MPI ranks as the engine's tp_size times pp_size (its config.json), or the "
        "engine built again",
        confidence=Confidence.CERTAIN,
        weight=83,
        signs=(
            sign("mpiSize == tp", r"(?P<detail>mpiSize == tp \* pp)"),
            sign("MPI size", r"(?P<detail>MPI size \d{1,6} != TP size \d{1,6} \* PP size \d{1,6})"),
        ),
        defaults={"detail": "tp * pp"},
        references=("TensorRT-LLM",),
    ),
    Rule(
        id="SERVE-PLAN-001",
        title="An engine of another TensorRT",
        domain=Domain.LAUNCH,
        cause="the engine file that {who} loads was built by another TensorRT ({detail})",
        remedy="build the engine with the version that serves it, on the same kind of GPU",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "engine plan file is not compatible",
                r"not compatible with this version of TensorRT(?:, (?P<detail>expecting library "
                r"version [\w.]{1,20} got [\w.]{1,20}))?",
            ),
            sign(
                "Serialization assertion",
                r"Version tag does not match\.? ?(?:Note: )?"
                r"(?P<detail>Current Version: \d{1,6}, Serialized Engine Version: \d{1,6})?",
            ),
        ),
        defaults={"detail": "the versions do not match"},
        references=("TensorRT",),
    ),
    Rule(
        id="SERVE-CAP-001",
        title="The GPU lacks what the program uses",
        domain=Domain.LAUNCH,
        cause="the GPU of {where} is of a generation that lacks what the program uses ({detail})",
        remedy="--dtype=half instead of bfloat16, another attention backend or quantization, or a "
        "newer GPU",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign(
                "Bfloat16 is only supported on GPUs",
                r"(?P<detail>Bfloat16 is only supported on GPUs with compute capability of at "
                r"least [\d.]{1,5})",
            ),
            sign(
                "FlashAttention only supports",
                r"(?P<detail>FlashAttention only supports .{1,40}GPUs)",
            ),
            sign(
                "quantization method",
                r"(?P<detail>quantization method \S{1,30} is not supported for the current GPU)",
            ),
            sign(
                "type fp8e4nv not supported",
                r"(?P<detail>type fp8e4nv not supported in this architecture)",
            ),
            # Of a kernel of Triton whose tiles were chosen for another GPU.
            sign(
                "out of resource: ",
                r"(?P<detail>out of resource: shared memory, Required: \d{1,9}, Hardware limit: "
                r"\d{1,9})",
                confidence=Confidence.LIKELY,
            ),
        ),
        defaults={"detail": "an ability"},
        references=("vLLM", "flash-attention"),
    ),
    Rule(
        id="SERVE-SPLIT-001",
        title="The model cannot be split over so many GPUs",
        domain=Domain.PROGRAM,
        cause="the model on {where} cannot be divided as asked: {detail}",
        remedy="a parallel size that divides heads, layers and the number of ranks (as a rule a "
        "power of two)",
        confidence=Confidence.CERTAIN,
        weight=78,
        signs=(
            sign(
                "must be divisible by",
                r"(?P<detail>.{1,60}(?:heads|size|layers|vocab|dimension).{0,40} must be divisible "
                r"by .{1,60})",
            ),
            # What is divided is part of a model, or it is divided among processes.
            sign(
                "is not divisible by",
                rf"^(?!{_NO_MODEL})(?P<detail>.{{0,60}}(?i:world[ _]size|heads|layers|vocab|hidden"
                r"|intermediate|embed|experts|ranks).{0,24} is not divisible by .{1,60})",
            ),
            sign(
                "is not divisible by",
                rf"^(?!{_NO_MODEL})(?P<detail>.{{1,80}} is not divisible by .{{0,40}}(?i:parallel"
                r"|tensor|pipeline|\btp\b|\bpp\b|world[ _]size|ranks|gpus|shards).{0,40})",
            ),
            sign(
                "AssertionError",
                r"^AssertionError$",
                frames=r"\n.{0,160}assert [\w.]{0,60}heads % [\w.]{0,40}(?:tp|parallel|world)"
                r"_?size == 0",
                detail="its attention heads are no multiple of the parallel size",
            ),
        ),
        defaults={"detail": "not divisible"},
        references=("vLLM", "Megatron-LM"),
    ),
    Rule(
        id="SERVE-WAIT-001",
        title="A worker of the server does not answer",
        domain=Domain.PROGRAM,
        cause="{who} waits for a worker that does not answer ({detail}): it hangs, has ended, or "
        "is "
        "busy for long",
        remedy="the workers' own lines above; py-spy dump of each; NCCL_DEBUG=INFO if it never "
        "began",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=44,
        signs=(
            sign(
                "No available shared memory broadcast block found",
                r"(?P<detail>No available shared memory broadcast block found)",
            ),
            sign(
                "Scheduler watchdog timeout",
                r"(?P<detail>Scheduler watchdog timeout)",
            ),
            sign("Watchdog timeout (self.watchdog_timeout", r"(?P<detail>Watchdog timeout)"),
            sign("RPC call to", r"(?P<detail>RPC call to \w{1,40} timed out)"),
            sign("execute_model timed out", r"(?P<detail>execute_model timed out)"),
        ),
        defaults={"detail": "no answer"},
        consequence="waited for a worker that did not answer",
        references=("vLLM", "SGLang"),
    ),
    Rule(
        id="MODEL-ARCH-001",
        title="The library does not know this model",
        domain=Domain.LAUNCH,
        cause="the libraries on {where} do not know the model ({detail}): they are older "
        "than it, or do not support it",
        remedy="pip install -U transformers (and vllm or sglang), or a model of the library's list",
        confidence=Confidence.CERTAIN,
        weight=76,
        signs=(
            sign(
                "does not recognize this architecture",
                r"(?P<detail>model type [`'\"]?[\w-]{1,60}).{0,20}but Transformers does not",
            ),
            sign("Transformers does not recognize this architecture"),
            sign(
                "are not supported for now",
                r"(?P<detail>Model architectures \[.{1,100}?\])",
            ),
            sign(
                "has no vLLM implementation",
                r"(?P<detail>\w{1,80}) has no (?:vLLM|SGLang) implementation",
            ),
            sign("Unsupported architectures", r"(?P<detail>Unsupported architectures.{1,80})"),
            sign(
                "does not exist or is not currently imported",
                r"(?P<detail>Tokenizer class \w{1,60})",
            ),
        ),
        defaults={"detail": "an architecture"},
        references=("transformers", "vLLM"),
    ),
    Rule(
        id="MODEL-CODE-001",
        title="The model brings code that must be allowed",
        domain=Domain.LAUNCH,
        cause="the model that {who} loads runs code of its own, which was not allowed",
        remedy="trust_remote_code=True (--trust-remote-code), after reading that code",
        confidence=Confidence.CERTAIN,
        weight=79,
        signs=(
            sign(
                "trust_remote_code=True", r"(?:pass|set|requires|option).{0,60}trust_remote_code="
            ),
            sign("contains custom code which must be executed"),
        ),
        references=("transformers",),
    ),
    Rule(
        id="SERVE-DEV-001",
        title="The server found no device type",
        domain=Domain.LAUNCH,
        cause="{who} found neither a GPU nor another device that it supports",
        remedy="nvidia-smi in the same container; a build of the server for this device",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=74,
        signs=(
            sign("Failed to infer device type"),
            sign("Device string must not be empty"),
            sign("No accelerator (CUDA, XPU, HPU) is available"),
            sign("requires at least one GPU"),
        ),
        references=("vLLM", "SGLang"),
    ),
    Rule(
        id="SERVE-API-001",
        title="What was to be measured is no OpenAI-compatible server",
        domain=Domain.LAUNCH,
        cause="{server} is no OpenAI-compatible server ({detail}); no load was sent",
        remedy="the base of its URLs, such as --set endpoint=http://HOST:8000/v1: below it, models "
        "must answer with a list of models",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "is no OpenAI-compatible server",
                r"(?P<server>https?://\S{1,200}|engine \d{1,3} \([\w.]{1,20}\)) is no "
                r"OpenAI-compatible server: (?P<detail>[^;]{1,200})",
            ),
        ),
        defaults={"server": "the endpoint", "detail": "it answers otherwise"},
        references=("OpenAI's API reference",),
    ),
    Rule(
        id="SERVE-REACH-001",
        title="The server to be measured cannot be reached",
        domain=Domain.LAUNCH,
        cause="{server} cannot be reached from {where} ({detail}); no load was sent",
        remedy="whether the server is up, listens on that address, and lets this node connect",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "is the server up",
                r"(?P<server>https?://\S{1,200}) cannot be reached: (?P<detail>[^;]{1,200}); "
                r"is the server up",
            ),
        ),
        defaults={"server": "the endpoint", "detail": "no connection"},
        references=("OpenAI's API reference",),
    ),
)
