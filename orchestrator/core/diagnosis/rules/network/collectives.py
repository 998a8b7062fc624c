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
        cause="{who} timed out after {milliseconds} ms in {operation} number {sequence}: another "
        "rank "
        "is slow, dead, elsewhere in the program, or in a long checkpoint",
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
            sign(
                "dump signal due to a collective timeout",
                r"Rank (?P<rank>\d{1,6})\].{0,20}Received a dump signal due to a collective "
                r"timeout",
            ),
            sign("we are taking the entire process down"),
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
                "disagreement between rank",
                r"Error: (?P<detail>disagreement between rank\d{1,6} and rank\d{1,6})",
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
        id="TORCH-COLL-005",
        title="A communicator was aborted",
        domain=Domain.PROGRAM,
        cause="the communicator of {who} was aborted: by a watchdog, or because another rank "
        "failed",
        remedy="look for what failed before that line, on any rank and in the kernel's log",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=60,
        signs=(
            sign("NCCL communicator was aborted", r"aborted(?: on rank (?P<rank>\d{1,6}))?"),
            sign("communicator has been aborted"),
        ),
        consequence="had their communicator aborted",
        references=("torch: ProcessGroupNCCL",),
    ),
    Rule(
        id="TORCH-COLL-006",
        title="A rank prepared data while the others waited",
        domain=Domain.PROGRAM,
        cause="{who} timed out in a collective while another rank was still preparing data "
        "({detail})",
        remedy="prepare the data before the run, or on every rank; else a longer timeout= of "
        "init_process_group (ddp_timeout)",
        role=LogRole.VICTIM,
        weight=70,
        signs=(
            sign(
                "Watchdog caught collective operation timeout",
                r"Rank (?P<rank>\d{1,6})\] Watchdog caught",
                around=r"(?P<detail>(?:Running tokenizer|Tokenizing|Map|Filter"
                r"|Grouping|Packing|Generating|Preprocessing|Preparing)"
                r"[^\n|]{0,60}: {1,4}\d{1,2}%)\|",
            ),
        ),
        defaults={"detail": "unfinished"},
        consequence="timed out waiting",
        references=("datasets", "LLaMA-Factory"),
    ),
    Rule(
        id="LAUNCH-PEER-001",
        title="A process that it needed went away",
        domain=Domain.PROGRAM,
        cause="{who} lost a process that it talked to ({detail}): that one ended first",
        remedy="look for what ended first: another rank, an engine, an actor or a server",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
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
            sign(
                "initialization failed due to an exception in a background",
                r"(?P<detail>\w{1,20}Proc)",
            ),
            sign(
                "See stack trace for", r"(?P<detail>Engine process failed to start|Worker\w{0,20})"
            ),
            sign("Received sigquit from a child proc", r"(?P<detail>a child process)"),
            sign("died unexpectedly", r"(?P<detail>Worker proc \S{1,40}) died unexpectedly"),
            sign("Background loop has errored already", r"(?P<detail>background loop)"),
            sign("_InactiveRpcError", r"(?P<detail>_InactiveRpcError)"),
            sign("EOFError", r"^(?P<detail>EOFError)$", frames=r"multiprocessing/connection\.py"),
            sign("The actor died", r"(?P<detail>actor) died"),
            sign("ray.exceptions.RayTaskError", r"(?P<detail>RayTaskError)"),
            sign("BrokenProcessPool", r"(?P<detail>BrokenProcessPool)"),
            sign(
                "exited unexpectedly",
                r"DataLoader worker \(pid.{1,60}(?P<detail>exited unexpectedly)",
            ),
            sign("by an unexpected system error", r"(?P<detail>A worker died or was killed)"),
            sign("ActorHandleNotFoundError", r"(?P<detail>ActorHandleNotFoundError)"),
            sign("scheduler is dead", r"(?P<detail>scheduler is dead)"),
            sign("Executor worker returned error", r"(?P<detail>Executor worker)"),
            sign("ShardCannotStart", r"(?P<detail>ShardCannotStart)"),
            sign(
                "Connection reset by peer",
                r"RuntimeError: (?P<detail>.{0,80}Connection reset by pe)",
            ),
        ),
        defaults={"detail": "connection lost"},
        consequence="lost a process that had ended",
        references=("Ray", "vLLM"),
    ),
    Rule(
        id="JAX-RDZV-001",
        title="Not all JAX processes came",
        domain=Domain.LAUNCH,
        cause="{who} waited in vain for other JAX processes ({detail}): they are not started, "
        "ended "
        "first, or cannot reach the coordinator",
        remedy="start every process (num_processes); the coordinator's address must be reachable "
        "from each node; initialization_timeout= for slow starts",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=64,
        signs=(
            sign("Barrier timed out", r"(?P<detail>Barrier timed out)"),
            sign("DEADLINE_EXCEEDED", around=r"CoordinationService/(?P<detail>\w{1,40})"),
            sign("agent in error status", r"agent in error status: (?P<detail>.{1,80})"),
            sign("cluster registration failed", r"(?P<detail>cluster registration failed)"),
            sign("may be stuck", r"thread has been (?P<detail>waiting for .{1,60}?) for \d"),
        ),
        defaults={"detail": "timed out"},
        consequence="waited in vain for JAX processes",
        references=("JAX",),
    ),
    Rule(
        id="JAX-RDZV-002",
        title="The JAX coordinator does not answer",
        domain=Domain.LAUNCH,
        cause="{who} cannot reach the JAX coordinator{peer}: the process that serves it ended "
        "first "
        "or is not started",
        remedy="the log of process 0; TCP to the coordinator's port from this node",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=60,
        signs=(
            sign(
                "failed to connect to all addresses",
                r"(?i:jax|xla|coordinat).{0,400}failed to connect to all addresses",
            ),
            sign("failed to connect to all addresses", around="WatchTasksAsync|[Jj]ax|JAX"),
            sign("WatchTasksAsync failed"),
            sign(
                "Failed to connect to remote host",
                r"ipv4:(?P<peer>[\d.:]{7,40}): Failed to conn",
            ),
        ),
        defaults={"peer": ""},
        consequence="could not reach the JAX coordinator",
        references=("JAX", "gRPC"),
    ),
    Rule(
        id="JAX-RDZV-003",
        title="A JAX process stopped answering",
        domain=Domain.PROGRAM,
        cause="{who} of JAX {what}, and this log does not say why",
        remedy="the log of that process; dmesg -T of its node",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=70,
        signs=(
            sign("stopped sending heartbeats", around=r"/task:(?P<rank>\d{1,6})"),
            sign(
                "with a different incarnation",
                r"/task:(?P<rank>\d{1,6}) unexpectedly tried to connect",
                what="restarted while the others still ran",
            ),
            sign("stopped sending heartbeats"),
            sign("most likely indicates that another task died", confidence=Confidence.POSSIBLE),
        ),
        defaults={"what": "stopped sending heartbeats (it crashed, was killed or hangs)"},
        consequence="missed another JAX process",
        references=("JAX",),
    ),
)
