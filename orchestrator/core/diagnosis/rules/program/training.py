"""Trainers: DeepSpeed, DDP, FSDP, checkpoints."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import Confidence, Domain, LogRole, Rule, sign

RULES = (
    Rule(
        id="DS-ZERO3-001",
        title="The model was built before DeepSpeed ZeRO-3 was set up",
        domain=Domain.PROGRAM,
        cause="{who} uses a model whose weights ZeRO-3 does not know ({detail}): it was built "
        "before the training arguments",
        remedy="make TrainingArguments(deepspeed=...) before from_pretrained(), keep them alive, "
        "and drop low_cpu_mem_usage and device_map",
        confidence=Confidence.LIKELY,
        weight=80,
        signs=(
            sign("'weight' must be 2-D", r"(?P<detail>'weight' must be 2-D)"),
            sign(
                "DeepSpeed Zero-3 is not compatible with",
                r"(?P<detail>DeepSpeed Zero-3 is not compatible with [`\w= ]{1,60})",
            ),
            sign(
                "torch.Size([0])",
                r"size mismatch for .{1,160}(?P<detail>torch\.Size\(\[0\]\))",
            ),
        ),
        defaults={"detail": "empty weights"},
        references=("transformers: DeepSpeed ZeRO-3", "deepspeed: zero.Init"),
    ),
    Rule(
        id="DS-BATCH-001",
        title="DeepSpeed's batch sizes do not multiply",
        domain=Domain.PROGRAM,
        cause="the batch sizes of DeepSpeed's configuration on {where} contradict the number of "
        "ranks ({detail})",
        remedy="train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x "
        "ranks; leave one of them to 'auto'",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign(
                "Check batch related parameters",
                r"Check batch related parameters\. (?P<detail>.{1,160})",
            ),
            sign("DeepSpeed config values that mismatch TrainingArguments"),
        ),
        defaults={"detail": "see the line"},
        references=("DeepSpeed",),
    ),
    Rule(
        id="DDP-UNUSED-001",
        title="Parameters took no part in the loss",
        domain=Domain.PROGRAM,
        cause="some parameters of the model on {where} got no gradient, for which DDP waits",
        remedy="find_unused_parameters=True, or every parameter in every loss; "
        "TORCH_DISTRIBUTED_DEBUG=DETAIL names them",
        confidence=Confidence.CERTAIN,
        weight=78,
        signs=(sign("Expected to have finished reduction in the prior iteration"),),
        references=("torch: DistributedDataParallel",),
    ),
    Rule(
        id="DDP-TWICE-001",
        title="A parameter was ready twice",
        domain=Domain.PROGRAM,
        cause="a parameter of the model on {where} got its gradient twice in one step: shared "
        "weights, or checkpointed activations run again",
        remedy="gradient_checkpointing_kwargs={{'use_reentrant': False}}, or static_graph=True",
        confidence=Confidence.CERTAIN,
        weight=78,
        signs=(sign("Expected to mark a variable ready only once"),),
        references=("torch: DistributedDataParallel",),
    ),
    Rule(
        id="CUDA-FORK-001",
        title="CUDA was used before a fork",
        domain=Domain.PROGRAM,
        cause="{who} used CUDA before its processes were forked, which then cannot use it",
        remedy="multiprocessing start method 'spawn' (vLLM: "
        "VLLM_WORKER_MULTIPROC_METHOD=spawn), and no CUDA call at import",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(sign("Cannot re-initialize CUDA in forked subprocess"),),
        references=("torch.multiprocessing",),
    ),
    Rule(
        id="CUDA-MIX-001",
        title="Tensors on different devices",
        domain=Domain.PROGRAM,
        cause="the program on {where} mixes tensors of different devices ({detail})",
        remedy="one device a rank: torch.cuda.set_device(LOCAL_RANK) and .to(device) for inputs; "
        "no "
        "device_map='auto' under torchrun",
        confidence=Confidence.CERTAIN,
        weight=68,
        signs=(
            sign(
                "Expected all tensors to be on the same device",
                r"found at least two devices, (?P<detail>[\w:]{1,12} and [\w:]{1,12})",
            ),
            sign("Expected all tensors to be on the same device"),
            sign(
                "device_map='auto'",
                r"(?P<detail>device_map='auto') in any distributed mode",
            ),
        ),
        defaults={"detail": "devices"},
        references=("torch", "accelerate"),
    ),
    Rule(
        id="TRAIN-DTYPE-001",
        title="Tensors of different types",
        domain=Domain.PROGRAM,
        cause="the program on {where} mixes tensors of different types (dtype): {detail}",
        remedy="one dtype for the whole model before it is wrapped (torch_dtype=..., "
        "model.to(dtype)), adapters and heads included; autocast around what computes",
        confidence=Confidence.CERTAIN,
        weight=68,
        signs=(
            sign(
                "Must flatten tensors with",
                r"(?P<detail>Must flatten tensors with (?:uniform|the same) `?dtype`? but got "
                r".{1,80})",
            ),
            sign(
                "to have the same dtype, but got",
                r"(?P<detail>[\w ]{1,40} to have the same dtype, but got: .{1,80})",
            ),
            sign(
                "must have the same dtype",
                r"(?P<detail>[\w ]{1,40} must have the same dtype.{0,80})",
            ),
            sign(
                "expected scalar type",
                r"(?P<detail>expected scalar type \w{1,20} but found \w{1,20})",
            ),
        ),
        defaults={"detail": "dtype"},
        references=("torch",),
    ),
    Rule(
        id="CKPT-SHAPE-001",
        title="The checkpoint does not fit the model",
        domain=Domain.PROGRAM,
        cause="the checkpoint that {who} loads is of another model or another layout ({detail})",
        remedy="the configuration that the checkpoint was made with (sizes, vocabulary, adapters, "
        "number of ranks), or another checkpoint",
        confidence=Confidence.CERTAIN,
        weight=70,
        signs=(
            sign(
                "size mismatch for",
                r"(?P<detail>size mismatch for [\w.]{1,120})",
            ),
            sign(
                "Error(s) in loading state_dict",
                around=r"(?P<detail>size mismatch for [\w.]{1,120}: copying a param with shape "
                r"[^\n]{1,80} from checkpoint, the shape in current model is [\w.]{1,20}"
                r"(?:\(\[[\d, ]{1,60}\]\))?"
                r"|(?:Missing|Unexpected) key\(s\) in state_dict: [^\n]{1,120})",
            ),
            sign(
                "Error(s) in loading state_dict",
                r"(?P<detail>Error\(s\) in loading state_dict for \w{1,60})",
            ),
            sign("Global shape mismatch for loaded", r"(?P<detail>Global shape mismatch.{1,160})"),
            sign(
                "Missing key",
                r"(?P<detail>Missing keys? (?:in checkpoint|for) state[_ ]dict: .{1,100})",
            ),
            sign("ZeRO checkpoint was saved"),
            sign(
                "DP world size of",
                r"(?P<detail>DP world size of \d{1,5} but the current world size is \d{1,5})",
            ),
        ),
        defaults={"detail": "layout"},
        references=("torch", "DeepSpeed"),
    ),
    Rule(
        id="CKPT-FILE-001",
        title="A file of weights is damaged or incomplete",
        domain=Domain.HOST,
        cause="a file of weights on {where} is damaged, incomplete or no weights at all ({detail})",
        remedy="its size and checksum against the source: an interrupted download, a Git LFS "
        "pointer, or a copy that ran out of space; remove and fetch it again",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign(
                "Error while deserializing header",
                r"(?P<detail>Error while deserializing header: ?\w{0,40})",
            ),
            sign("invalid load key", r"(?P<detail>invalid load key, .{1,10})"),
            sign(
                "PytorchStreamReader failed",
                r"(?P<detail>PytorchStreamReader failed .{1,80})",
            ),
            sign("Consistency check failed", r"(?P<detail>Consistency check failed.{0,80})"),
            sign("Ran out of input", r"(?P<detail>EOFError: Ran out of input)"),
            sign("without having git-lfs installed"),
        ),
        defaults={"detail": "a pointer of Git LFS"},
        references=("safetensors", "torch"),
    ),
    Rule(
        id="CKPT-SAFE-001",
        title="torch.load refuses what the checkpoint holds",
        domain=Domain.PROGRAM,
        cause="{who} may not load the checkpoint: torch.load takes tensors alone (weights_only), "
        "and this file holds other objects ({detail})",
        remedy="torch.serialization.add_safe_globals, or weights_only=False for a file that you "
        "trust; a newer library that saves plain tensors",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("Weights only load failed"),
            sign(
                "WeightsUnpickler error",
                r"WeightsUnpickler error: Unsupported \w{1,20}: (?:GLOBAL )?(?P<detail>\S{1,80})",
            ),
        ),
        defaults={"detail": "of a class"},
        references=("torch.load",),
    ),
    Rule(
        id="TRAIN-LORA-001",
        title="The adapter names layers that the model lacks",
        domain=Domain.PROGRAM,
        cause="the adapter on {where} names layers that the base model does not have ({detail})",
        remedy="target_modules of this model (q_proj, v_proj, ... or 'all-linear'); print(model) "
        "shows their names",
        confidence=Confidence.CERTAIN,
        weight=78,
        signs=(
            sign(
                "not found in the base model",
                r"[Tt]arget modules (?P<detail>.{1,120}?) not found in the base model",
            ),
            sign("Please specify `target_modules`", r"(?P<detail>target_modules)"),
        ),
        defaults={"detail": "target_modules"},
        references=("peft",),
    ),
    Rule(
        id="TRACK-AUTH-001",
        title="The experiment tracker asks for a login",
        domain=Domain.LAUNCH,
        cause="{who} reports to an experiment tracker that knows no login there ({detail})",
        remedy="--env WANDB_API_KEY (kept secret), or WANDB_MODE=offline, or report_to='none'",
        confidence=Confidence.CERTAIN,
        weight=74,
        signs=(
            sign("api_key not configured", r"(?P<detail>api_key not configured)"),
            sign("wandb login", r"(?P<detail>wandb) login(?! --relogin)"),
            sign("No API key configured", r"(?P<detail>No API key configured)"),
        ),
        defaults={"detail": "no key"},
        references=("wandb",),
    ),
    Rule(
        id="TRACK-NET-001",
        title="The experiment tracker cannot be reached",
        domain=Domain.FABRIC,
        cause="{who} cannot reach its experiment tracker",
        remedy="--env WANDB_MODE=offline, and wandb sync afterwards from a node with a network",
        role=LogRole.CONDITION,
        weight=50,
        signs=(
            sign("wandb: Network error"),
            sign("wandb.errors.CommError"),
            sign("api.wandb.ai", r"host='api\.wandb\.ai', port=443\): (?:Max retries|Read timed)"),
        ),
        references=("wandb",),
    ),
)
