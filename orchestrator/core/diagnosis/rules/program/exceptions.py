"""The program's own exceptions, from Python and from a shell."""

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
        id="PY-SYNTAX-001",
        title="The program is no valid Python here",
        domain=Domain.PROGRAM,
        cause="{who} could not read the program ({detail})",
        remedy="correct the line above it, or use the Python version that it was written for",
        confidence=Confidence.CERTAIN,
        weight=75,
        signs=(
            sign(
                "Error: ",
                r"^(?P<detail>(?:SyntaxError|IndentationError|TabError): .{1,120})",
            ),
        ),
        defaults={"detail": "SyntaxError"},
        references=("Python",),
    ),
    Rule(
        id="PY-ARGS-001",
        title="The program does not know an argument",
        domain=Domain.PROGRAM,
        cause="the program on {who} refuses its arguments: {detail}",
        remedy="--help of the script; orchestrate plan shows the exact command",
        confidence=Confidence.CERTAIN,
        weight=72,
        signs=(
            sign(
                "error: ",
                r"(?:^|: )error: (?P<detail>(?:unrecognized arguments|the following arguments are "
                r"required"
                r"|argument [^:]{1,60}:|ambiguous option).{0,120})",
            ),
            sign(
                "are not used by the HfArgumentParser",
                r"(?P<detail>arguments are not used by the HfArgumentParser: .{1,80})",
            ),
            sign("No such option: ", r"^Error: (?P<detail>No such option: \S{1,60})"),
            sign("Could not override", r"(?P<detail>Could not override '[^']{1,80}')"),
            sign("' not found in: ", r"(?P<detail>Override '[^']{1,80}' not found)"),
            sign("is not in struct", r"(?P<detail>Key '[^']{1,80}' is not in struct)"),
        ),
        defaults={"detail": "see the line"},
        references=("Python: argparse",),
    ),
    Rule(
        id="PY-NAN-001",
        title="The loss is not a number",
        domain=Domain.PROGRAM,
        cause="training on {who} diverged ({detail})",
        remedy="a lower learning rate, gradient clipping, bf16 instead of fp16; look at the batch",
        weight=60,
        signs=(
            sign(
                "minimum loss scale",
                r"(?P<detail>[Cc]urrent loss scale already at minimum|minimum loss scale)",
            ),
            sign("loss scale already at minimum", r"(?P<detail>loss scale already at minimum)"),
            sign("contains nan", r"(?P<detail>[\w ]{0,40}contains nan)"),
            sign("oss is nan", r"(?P<detail>[Ll]oss is nan)"),
            sign("nan values in its", r"(?P<detail>'\w{1,60}' returned nan values)"),
            sign("found NaN in", r"(?P<detail>found NaN in [\w ]{1,60})"),
            sign("probability tensor contains", r"(?P<detail>probability tensor contains either)"),
        ),
        defaults={"detail": "loss is nan"},
        references=("DeepSpeed", "Megatron-LM"),
    ),
    Rule(
        id="PY-EXC-001",
        title="The program raised an exception",
        domain=Domain.PROGRAM,
        cause="{who} raised {detail}",
        remedy="the traceback above that line says where in the program",
        role=LogRole.FAILURE,
        weight=8,
        confidence=Confidence.LIKELY,
        signs=(
            sign(
                "Error",
                r"^(?P<detail>(?!\w{0,40}Warning)[A-Za-z_][\w.]{0,80}Error(?:\(\w{1,60}\))?"
                r"(?:: .{0,160}|$))",
            ),
            sign("Exception: ", r"^(?P<detail>[A-Za-z_][\w.]{0,80}Exception: .{1,160})"),
            sign("Exception: ", r"^(?P<detail>Exception: .{1,160})"),
        ),
        defaults={"detail": "an exception"},
        references=("Python",),
    ),
    Rule(
        id="PY-PICKLE-001",
        title="An object cannot be sent to another process",
        domain=Domain.PROGRAM,
        cause="{who} cannot pickle what another process is to get ({detail})",
        remedy="a function of a module instead of a lambda or an inner function, and no open "
        "files, "
        "locks or CUDA objects in data sets; or the start method fork",
        confidence=Confidence.CERTAIN,
        weight=72,
        signs=(sign("pickle", r"Error: (?P<detail>(?:Can't|cannot) (?:get|pickle) .{1,120})"),),
        defaults={"detail": "see the line"},
        references=("Python: pickle",),
    ),
    Rule(
        id="PY-SPAWN-001",
        title="A child process got nothing from its parent",
        domain=Domain.PROGRAM,
        cause="a child process of {who} got no object from its parent, which had failed before",
        remedy="the traceback of the parent process, as a rule directly above",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=84,
        signs=(
            sign("Ran out of input", frames=r"multiprocess\w{0,4}/(?:spawn|forkserver)\.py"),
            sign("was truncated", frames=r"multiprocess\w{0,4}/(?:spawn|forkserver)\.py"),
        ),
        consequence="got nothing from their parent process",
        references=("Python: multiprocessing",),
    ),
    Rule(
        id="PY-INT-001",
        title="Interrupted",
        domain=Domain.LAUNCH,
        cause="{who} was interrupted (SIGINT): somebody pressed Ctrl-C, or its launcher stopped it",
        remedy="nothing, if it was meant; else the log of whatever sent the signal",
        role=LogRole.STOPPED,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=42,
        signs=(sign("KeyboardInterrupt", r"^KeyboardInterrupt\b"),),
        consequence="were interrupted",
        references=("Python",),
    ),
    Rule(
        id="PY-EXIT-001",
        title="Native threads outlived the program",
        domain=Domain.PROGRAM,
        cause="{who} was aborted at its own end: native threads still ran, as a rule those of a "
        "process group that was not destroyed",
        remedy="call torch.distributed.destroy_process_group() at the end of the script",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        weight=60,
        # Without an exception no C++ code failed: a thread was left when its owner was destroyed.
        signs=(sign("terminate called without an active exception"),),
        references=("C++: std::thread", "torch: ProcessGroupGloo"),
    ),
    Rule(
        id="NATIVE-ASSERT-001",
        title="An assertion in native code failed",
        domain=Domain.PROGRAM,
        cause="{who} stopped at an assertion in native code: {detail}",
        remedy="the words of the assertion name what was expected; as a rule a size, a version or "
        "a "
        "number of devices that does not fit",
        role=LogRole.FAILURE,
        weight=24,
        signs=(
            sign("Assertion failed: ", r"Assertion failed: (?P<detail>.{1,160})"),
            sign("INTERNAL ASSERT FAILED", r"(?P<detail>.{0,80}INTERNAL ASSERT FAILED.{0,120})"),
            sign("' failed.", r"Assertion [`'](?P<detail>.{1,120})' failed\."),
            sign("enforce fail at", r"enforce fail at (?P<detail>.{1,160})"),
            sign("Check failed: ", r"Check failed: (?P<detail>.{1,160})"),
        ),
        defaults={"detail": "see the line"},
        references=("C++",),
    ),
    Rule(
        id="PY-HOME-001",
        title="The interpreter does not find its own library",
        domain=Domain.LAUNCH,
        cause="Python on {who} does not find its standard library: PYTHONHOME is wrong, or the "
        "environment was moved or copied",
        remedy="unset PYTHONHOME; build the environment on the node instead of copying it",
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign("No module named 'encodings'"),
            sign("Could not find platform independent libraries"),
        ),
        references=("Python",),
    ),
    Rule(
        id="PY-ABORT-001",
        title="The program aborted in native code",
        domain=Domain.PROGRAM,
        cause="{who} ended itself in native code ({detail})",
        remedy="the lines above say why; --env PYTHONFAULTHANDLER=1 adds the Python frames",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        confidence=Confidence.POSSIBLE,
        weight=15,
        signs=(
            sign(
                "terminate called after throwing",
                r"terminate called after throwing (?P<detail>an instance of '(?!c10::Dist)"
                r"[^']{1,80}')",
            ),
            sign("  what():", r"what\(\): {1,4}(?P<detail>.{1,160})"),
            sign("double free or corruption", r"(?P<detail>double free or corruption)"),
            sign("invalid pointer", r"(?P<detail>(?:free|munmap_chunk)\(\): invalid pointer)"),
            sign("malloc", r"(?P<detail>malloc\(\): .{1,60}|malloc_consolidate\(\).{1,40})"),
            sign("corrupted size vs. prev_size", r"(?P<detail>corrupted size vs\. prev_size)"),
            sign("Fatal Python error: Aborted", r"(?P<detail>Fatal Python error: Aborted)"),
            sign(" panicked at", r"thread '[^']{1,60}' panicked at (?P<detail>.{1,160})"),
            sign("panic: ", r"^(?P<detail>panic: .{1,160})"),
        ),
        defaults={"detail": "abort"},
        aftermath=True,
        references=("C++",),
    ),
)
