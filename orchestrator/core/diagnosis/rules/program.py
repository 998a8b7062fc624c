"""Python, its packages, the hub, and the program's own exceptions."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

# Names that projects give their own folders, and packages hardly ever.
_OWN = (
    "src|source|utils|util|lib|libs|common|core|models|model|configs|config|tools|scripts"
    "|benchmarks|benchmark|modules|training|inference|dataset|data|trainer|helpers"
)

RULES = (
    Rule(
        id="PY-MOD-001",
        title="A Python package is missing",
        domain=Domain.LAUNCH,
        cause="{who} has no module {module} in the interpreter that runs it",
        remedy="python: of the inventory must name the right environment; or name the package in "
        "the workload's requirements",
        confidence=Confidence.CERTAIN,
        weight=70,
        signs=(sign("No module named", r"No module named '?(?P<module>[\w.]{1,80})"),),
        defaults={"module": "it needs"},
        references=("Python",),
    ),
    Rule(
        id="PY-PATH-001",
        title="The project's own modules are not on the path",
        domain=Domain.LAUNCH,
        cause="{who} does not find {module}, which looks like a folder of the project itself: "
        "PYTHONPATH is not set there, or it was started from another directory",
        remedy="start it with orchestrate run -- SCRIPT (sets PYTHONPATH to the synced root), or "
        "--env PYTHONPATH=DIR",
        weight=75,
        signs=(
            sign(
                "No module named",
                rf"No module named '?(?P<module>(?:{_OWN})(?:\.[\w.]{{1,80}})?)(?:'|\s|$)",
            ),
            sign(
                "attempted relative import",
                r"(?P<module>attempted relative import) (?:with no known parent|beyond top-level)",
            ),
        ),
        defaults={"module": "a module"},
        references=("Python",),
    ),
    Rule(
        id="PY-NVML-001",
        title="NVML bindings are missing",
        domain=Domain.LAUNCH,
        cause="{who} cannot read power and temperatures: the NVML bindings or library are missing",
        remedy="pip install nvidia-ml-py (not pynvml), and the driver's libnvidia-ml.so.1 inside "
        "the container",
        role=LogRole.CONDITION,
        advice=Advice.GO_ON,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign("No module named 'pynvml'"),
            sign("NVMLError_LibraryNotFound"),
            sign("NVML Shared Library Not Found"),
        ),
        references=("nvidia-ml-py",),
    ),
    Rule(
        id="PY-LIB-001",
        title="A shared library does not load",
        domain=Domain.LAUNCH,
        cause="{who} could not load {library}",
        remedy="install the package that brings it, or clean LD_LIBRARY_PATH; extensions must be "
        "built for the installed torch",
        weight=72,
        signs=(
            sign(
                "cannot open shared object file",
                r"(?:Error: |libraries: )(?P<library>[\w.+/-]{1,160}): cannot open shared object "
                r"file",
            ),
            sign("undefined symbol", r"Error: (?P<library>[\w.+/-]{1,200}): undefined symbol"),
        ),
        defaults={"library": "a shared library"},
        references=("ld.so",),
    ),
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
        id="PY-FILE-001",
        title="The script is not there",
        domain=Domain.LAUNCH,
        cause="{who} did not find {path}, which it was told to run",
        remedy="paths in launch commands are relative to the synced folder; orchestrate sync "
        "--dry-run shows what travels",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("can't open file", r"can't open file '?(?P<path>[^':]{1,200})"),
            sign(
                "No such file or directory",
                r"^(?:/bin/|/usr/bin/)?(?:ba|da|z)?sh: (?:line )?(?:\d{1,6}: )?"
                r"(?P<path>[^ :]{1,200}): No such file",
            ),
            sign(
                "not found",
                r"^(?:/bin/|/usr/bin/)?(?:ba|da|z)?sh: (?:line )?(?:\d{1,6}: )?"
                r"(?P<path>[^ :]{1,200}): "
                r"(?:command )?not found",
            ),
            sign("execve", r"execve\(\): (?P<path>[^ :]{1,200}): No such file"),
        ),
        defaults={"path": "the program"},
        references=("Python", "sh"),
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
        ),
        defaults={"detail": "see the line"},
        references=("Python: argparse",),
    ),
    Rule(
        id="HF-AUTH-001",
        title="The model is gated",
        domain=Domain.LAUNCH,
        cause="{who} may not read {repo} from the model hub: it is gated or private",
        remedy="accept the licence on the model's page, then --env HF_TOKEN (taken from here and "
        "kept secret)",
        confidence=Confidence.CERTAIN,
        weight=82,
        signs=(
            sign("GatedRepoError"),
            sign(
                "You are trying to access a gated repo",
                r"(?P<repo>a gated repo)",
            ),
            sign(
                "Cannot access gated repo",
                r"gated repo for url https?://[^/ ]{1,80}/(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})",
            ),
            sign(
                "is not a local folder and is not a valid model identifier",
                r"(?P<repo>[\w./-]{1,120}) is not a local folder",
            ),
            sign(
                "401 Client Error",
                r"401 Client Error.{0,60}huggingface\.co/(?P<repo>[\w./-]{1,120})",
            ),
            sign("RepositoryNotFoundError"),
        ),
        defaults={"repo": "the model"},
        references=("huggingface_hub",),
    ),
    Rule(
        id="HF-NET-001",
        title="The model hub cannot be reached",
        domain=Domain.FABRIC,
        cause="{who} cannot reach the model hub",
        remedy="download once where there is a network, copy the cache to the same HF_HOME on "
        "every node, and set HF_HUB_OFFLINE=1; or HTTPS_PROXY",
        advice=Advice.GIVE_UP,
        weight=78,
        signs=(
            sign("We couldn't connect to 'https://huggingface.co'"),
            sign("LocalEntryNotFoundError"),
            sign(
                "huggingface.co",
                r"host='(?:cdn-lfs\.)?huggingface\.co', port=443\): Max retries exceeded",
            ),
            sign("OfflineModeIsEnabled"),
        ),
        references=("huggingface_hub",),
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
        weight=20,
        confidence=Confidence.LIKELY,
        signs=(
            sign(
                "Error",
                r"^(?P<detail>(?!Warning)[A-Za-z_][\w.]{0,80}Error(?:: .{0,160}|$))",
            ),
            sign("Exception", r"^(?P<detail>[A-Za-z_][\w.]{0,80}Exception: .{0,160})"),
            sign("Exception", r"^(?P<detail>Exception: .{0,160})"),
        ),
        defaults={"detail": "an exception"},
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
                r"terminate called after throwing (?P<detail>an instance of '[^']{1,80}')?",
            ),
            sign(
                "failed (exitcode: -6)",
                r"failed \(exitcode: -6\) local_rank: (?P<local_rank>\d{1,4})",
            ),
        ),
        defaults={"detail": "abort"},
        references=("C++",),
    ),
)
