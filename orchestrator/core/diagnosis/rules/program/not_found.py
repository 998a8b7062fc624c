"""Modules, libraries, files and programs that are not where they were looked for."""

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

# What a shell puts before its words on a line of a script.
_SCRIPT = r"^[\w./@-]{1,160}: (?:line )?\d{1,6}: "

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
        signs=(
            sign(
                "No module named",
                r"(?:^|[\s:])(?:ModuleNotFoundError|ImportError): No module named ['\"]?"
                r"(?P<module>[\w.]{1,80})",
            ),
            sign("No module named", r"python[\d.]{0,5}: No module named (?P<module>[\w.]{1,80})"),
            # Of ``python -m PACKAGE.MODULE`` whose package is not there.
            sign(
                "No module named",
                r"Error while finding module specification for .{1,120}"
                r"No module named ['\"]?(?P<module>[\w.]{1,80})",
            ),
            sign(
                "No module named",
                r"^(?:Error|[\w ]{0,30}error): No module named ['\"]?(?P<module>[\w.]{1,80})",
                confidence=Confidence.LIKELY,
            ),
            sign(
                "You need to have ",
                r"You need to have (?P<module>[\w.-]{1,60}(?: or [\w.-]{1,60})?) installed",
            ),
            sign(
                "not found in your environment",
                r"requires the (?P<module>[\w.-]{1,60}) library but it was not found in your env",
            ),
        ),
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
                rf"Error: No module named ['\"]?(?P<module>(?:{_OWN})(?:\.[\w.]{{1,80}})?)(?:['\"]|"
                rf"\s|$)",
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
                r"(?:Error: |libraries: )(?P<library>(?!\S{0,80}torch_extensions)[\w.+/-]{1,160}): "
                r"cannot open shared object file",
            ),
            sign("Failed to find CUDA library", r"CUDA library (?P<library>[\w.+-]{1,80})"),
            sign("invalid ELF header", r"Error: (?P<library>[\w.+/-]{1,200}): invalid ELF header"),
            sign("wrong ELF class", r"Error: (?P<library>[\w.+/-]{1,200}): wrong ELF class"),
            sign("Required library version not found", r"not found: (?P<library>lib[\w.+-]{1,80})"),
            sign(
                "Could not find the bitsandbytes CUDA binary",
                r"binary at \w{0,12}\('(?P<library>[\w.+/-]{1,200})'",
            ),
            sign(
                "CUDA Setup failed despite GPU being available",
                r"(?P<library>CUDA) Setup failed",
            ),
            sign(
                "symbol lookup error",
                r"symbol lookup error: (?P<library>[\w.+/-]{1,200}: undefined symbol: \w{1,120})",
            ),
            sign("Could not load library", r"Could not load library (?P<library>lib[\w.+-]{1,80})"),
            sign("undefined symbol", r"Error: (?P<library>[\w.+/-]{1,200}): undefined symbol"),
        ),
        defaults={"library": "a shared library"},
        references=("ld.so",),
    ),
    Rule(
        id="PY-FILE-001",
        title="The script is not there",
        domain=Domain.LAUNCH,
        cause="{who} did not find the program {path}",
        remedy="a relative path is looked up in the synced folder, and orchestrate sync --dry-run "
        "shows what travels; an absolute one must be there on that node",
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
            sign("execvp error on file", r"execvp error on file (?P<path>[^ ]{1,200}) \(No such"),
            sign("exec: ", r"exec: \"?(?P<path>[^ :\"]{1,200})\"?: (?:executable file )?not found"),
            sign(
                "No such file or directory",
                r"^env: ['\u2018]?(?P<path>[\w./-]{1,200})['\u2019]?: No such f",
            ),
            sign(
                "unable to find the specified executable file",
                around=r"Executable: {1,20}(?P<path>\S{1,200})",
            ),
            sign("unable to find the specified executable file"),
            sign("unable to launch the specified application as it could not access"),
            sign("not found", rf"{_SCRIPT}(?P<path>[^ :]{{1,200}}): (?:command )?not found"),
            sign("No such file or directory", rf"{_SCRIPT}(?P<path>[^ :]{{1,200}}): No such file"),
            sign(
                "no such file or directory",
                r"exec:? \"?(?P<path>/[^ :\"]{1,200})\"?: no such file",
            ),
            sign("bad interpreter", r"(?P<path>[^ :]{1,200}): bad interpreter: No such file"),
            sign("caused: no such file", r"(?P<path>exec user process) caused: no such file"),
            sign("failed to execute: ", r"failed to execute: (?P<path>\S{1,200}): No such file"),
            sign(
                "does not exist",
                r"^Error: .{0,20}script ['\"]?(?P<path>\S{1,200}?)['\"]? does not ex",
            ),
        ),
        defaults={"path": "the program"},
        references=("Python", "sh"),
    ),
    Rule(
        id="SH-PROBE-001",
        title="A tool that only looks is missing",
        domain=Domain.LAUNCH,
        cause="a script on {where} calls {program}, which is not there, and continues without it",
        remedy="nothing for the run itself: what {program} would have shown is missing in the log",
        role=LogRole.HARMLESS,
        advice=Advice.GO_ON,
        confidence=Confidence.POSSIBLE,
        weight=84,
        signs=(
            sign(
                "not found",
                r"(?:^|[ :])(?P<program>nvidia-smi|rocm-smi|ibstat|ibv_devinfo|ibdev2netdev|lspci"
                r"|lscpu|lsof|netstat|ifconfig|free|htop|nvtop)"
                r": (?:command )?not found",
            ),
        ),
        defaults={"program": "a tool"},
        references=("sh",),
    ),
)
