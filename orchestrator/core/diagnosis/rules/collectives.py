"""Ranks that wait for each other, and those that only suffer."""

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
        id="TORCH-COLL-001",
        title="Time-out in a collective",
        domain=Domain.PROGRAM,
        cause="{who} waited {milliseconds} ms in {operation} number {sequence}: another rank is "
        "slow, dead, elsewhere in the program, or in a long checkpoint",
        remedy="find the rank that did not come: TORCH_NCCL_TRACE_BUFFER_SIZE=2000 and "
        "TORCH_NCCL_DUMP_ON_TIMEOUT=1, then torchfrtrace; orchestrate's --budget hang=SECONDS "
        "names it while it hangs",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=65,
        signs=(
            sign(
                "Watchdog caught collective operation timeout",
                r"Rank (?P<rank>\d{1,6})\] Watchdog caught collective operation timeout: "
                r"WorkNCCL\(SeqNum=(?P<sequence>\d{1,12}), OpType=(?P<operation>\w{1,40})"
                r".{0,160}?\) ran for (?P<milliseconds>\d{1,12}) milliseconds",
            ),
            sign("Watchdog caught collective operation timeout"),
            sign(
                "Exception (either an error or timeout) detected by watchdog",
                r"Rank (?P<rank>\d{1,6})\] Exception .{0,40}detected by watchdog",
            ),
            sign("Some NCCL operations have failed or timed out"),
            sign("group watchdog thread terminated with exception"),
        ),
        defaults={"operation": "a collective", "sequence": "?", "milliseconds": "many"},
        consequence="timed out waiting",
        references=("pytorch#118369", "pytorch#152623", "Megatron-LM#1207"),
    ),
    Rule(
        id="TORCH-COLL-002",
        title="Ranks call different collectives",
        domain=Domain.PROGRAM,
        cause="the ranks do not call the same collectives in the same order: {detail}",
        remedy="make data even over ranks (drop_last, same number of batches), and no collective "
        "under a condition on the rank; TORCH_DISTRIBUTED_DEBUG=DETAIL names the call",
        confidence=Confidence.LIKELY,
        weight=75,
        signs=(
            sign(
                "Detected mismatch between collectives on ranks",
                r"Detected mismatch between collectives on ranks\. (?P<detail>.{1,240})",
            ),
            sign(
                "Mismatched collective detected",
                r"(?P<detail>Mismatched collective detected.{0,100})",
            ),
            sign(
                "collective mismatch error",
                r"(?P<detail>peer .{1,80}collective mismatch error, local size \d{1,15} remote "
                r"size \d{1,15})",
            ),
            sign(
                "instead of",
                r"(?P<detail>truncated : \w{8,9} \d{1,15} bytes instead of \d{1,15})",
            ),
            sign(
                "have different",
                r"(?P<detail>Communicator ranks have different \w{1,40} operation counts)",
            ),
        ),
        defaults={"detail": "see the lines"},
        references=("pytorch#140563", "NCCL#296"),
    ),
    Rule(
        id="TORCH-COLL-003",
        title="The watchdog itself is stuck",
        domain=Domain.HOST,
        cause="{who} is stuck in a CUDA call, behind the GIL or in a file system: its watchdog did "
        "nothing for {seconds} s",
        remedy="py-spy dump of this rank (orchestrate's --budget hang=SECONDS takes it); "
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC higher only for pauses that are known",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        weight=60,
        signs=(
            sign(
                "watchdog got stuck for",
                r"Rank (?P<rank>\d{1,6})\] .{0,40}watchdog got stuck for (?P<seconds>\d{1,7}) "
                r"seconds",
            ),
            sign("watchdog got stuck for"),
            sign(
                "Heartbeat monitor timed out",
                r"Rank (?P<rank>\d{1,6})\].{0,40}Heartbeat monitor timed out",
            ),
        ),
        defaults={"seconds": "some hundred"},
        references=("ArcticTraining#219",),
    ),
    Rule(
        id="TORCH-COLL-004",
        title="Barrier without all ranks",
        domain=Domain.PROGRAM,
        cause="{who} found that {missing} did not reach the barrier",
        remedy="look at the log of the ranks named there",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=66,
        signs=(
            sign(
                "monitoredBarrier",
                r"(?P<missing>[Rr]anks? [\d, ]{1,120}) failed to pass monitoredBarrier",
            ),
            sign("successfully reached monitoredBarrier"),
        ),
        defaults={"missing": "some rank"},
        consequence="timed out at a barrier",
        references=("pytorch: monitored_barrier",),
    ),
    Rule(
        id="LAUNCH-PEER-001",
        title="A process that it needed went away",
        domain=Domain.PROGRAM,
        cause="{who} lost a process that it talked to ({detail}): that one ended first",
        remedy="look for what ended first: another rank, an engine, an actor or a server",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=45,
        signs=(
            sign("ConnectionResetError", r"^(?P<detail>ConnectionResetError)"),
            sign("BrokenPipeError", r"^(?P<detail>BrokenPipeError)"),
            sign("ConnectionAbortedError", r"^(?P<detail>ConnectionAbortedError)"),
            sign("RuntimeError: Broken pipe", r"(?P<detail>Broken pipe)"),
            sign("RuntimeError: Connection reset by peer", r"(?P<detail>Connection reset by peer)"),
            sign("RayActorError", r"(?P<detail>RayActorError)"),
            sign("ActorDiedError", r"(?P<detail>ActorDiedError)"),
            sign("EngineDeadError", r"(?P<detail>EngineDeadError)"),
            sign("Engine core initialization failed", r"(?P<detail>Engine core)"),
        ),
        defaults={"detail": "connection lost"},
        consequence="lost a process that had ended",
        references=("Ray", "vLLM"),
    ),
    Rule(
        id="LAUNCH-END-001",
        title="Ended because another rank failed",
        domain=Domain.LAUNCH,
        cause="{who} was told to end, because another rank had failed",
        remedy="look at the log of the rank that ended first",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=40,
        signs=(
            sign("closing signal SIGTERM"),
            sign("death signal, shutting down workers"),
            sign("ChildFailedError"),
            sign("SignalException: Process"),
            sign("srun: Job step aborted"),
            sign("SIGTERM", r"(?:Received|Caught|received|caught) (?:signal )?(?:15|SIGTERM)"),
            sign("mpirun noticed that process rank"),
        ),
        consequence="were told to end",
        references=("torchrun", "Slurm"),
    ),
    Rule(
        id="LAUNCH-TIME-001",
        title="The job's time was up",
        domain=Domain.LAUNCH,
        cause="Slurm ended the job on {who}: its time limit was reached",
        remedy="sbatch --time, or checkpoints and orchestrate resume",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(sign("DUE TO TIME LIMIT"),),
        references=("Slurm",),
    ),
    Rule(
        id="LAUNCH-NODE-001",
        title="A node failed under Slurm",
        domain=Domain.HARDWARE,
        cause="Slurm lost {who}",
        remedy="orchestrate probe that node, and exclude it: --nodes '!NODE'",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("DUE TO NODE FAILURE"),
            sign("Node failure on", r"Node failure on (?P<node>[\w.-]{1,80})"),
        ),
        references=("Slurm",),
    ),
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
)
