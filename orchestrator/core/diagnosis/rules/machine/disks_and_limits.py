"""Files, disks and the limits of an account."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    Sign,
    sign,
)

# Open MPI's words, over several lines.
_MKDIR = r"Directory: {1,8}(?P<path>/\S{1,200})\s{1,4}[^\n]{0,200}?Error: {1,8}%s"
# Errors of a device, or of a server or network behind a file.
_DEVICE = "5|6|19|30|37|52|70|71|103|104|107|108|110|112|113|116|117|121|512"

_KIND = r"(?P<detail>\w{1,40})"


def _rust(errors: str, kind: str = r"\w{1,40}") -> Sign:
    """How programs in Rust write the errors of the system with these numbers."""
    return sign("Os { code: ", rf"\bOs \{{ code: (?:{errors}), kind: {kind}")


RULES = (
    Rule(
        id="HOST-DISK-001",
        title="The disk is full",
        domain=Domain.HOST,
        cause="{who} could not write {path}: {reason}",
        remedy="df -h and df -i on the node, quota -s or lfs quota for the account; orchestrate "
        "clean "
        "removes old runs; fewer checkpoints",
        confidence=Confidence.CERTAIN,
        weight=75,
        signs=(
            _rust("28|122"),
            sign(
                "No space left on device",
                r"No space left on device: '(?P<path>/(?!dev/shm)[^']{1,200})",
            ),
            sign(
                "No space left on device",
                r"(?P<path>/(?!dev/shm)[\w./-]{2,200})['\"`\u2019]?: (?:.{0,40}: )?No space left "
                r"on device",
            ),
            sign("No space left on device", confidence=Confidence.LIKELY),
            sign(
                "no space left on device", r"(?:write|mkdir) (?P<path>/[^ :]{1,200}): no space left"
            ),
            sign("no space left on device", confidence=Confidence.LIKELY),
            sign("file write failed", r"PytorchStreamWriter failed writing file|file write failed"),
            sign("unexpected pos ", r"inline_container\.cc.{0,20}unexpected pos"),
            sign(
                "isk quota exceeded",
                r"isk quota exceeded(?:: '(?P<path>[^']{1,200}))?",
                reason="the disk quota of its account is used up",
            ),
            sign("database or disk is full"),
        ),
        defaults={"path": "a file", "reason": "no space or no inode is left"},
        references=("Linux: ENOSPC, EDQUOT",),
    ),
    Rule(
        id="HOST-INODE-001",
        title="The file system has no inodes left",
        domain=Domain.HOST,
        cause="the file system {path} of {where} holds as many files as it can: its blocks may be "
        "free, "
        "its inodes are used up",
        remedy="df -i on the node; remove or pack small files (tar shards); orchestrate clean "
        "removes "
        "old runs",
        role=LogRole.CONDITION,
        weight=76,
        signs=(
            sign(
                "100% /",
                r"\d{3,15} {1,12}\d{3,15} {1,12}0 {1,8}100% (?P<path>/\S{0,160})",
                around=r"IUse%[^\n]{0,40}\n",
            ),
        ),
        defaults={"path": "it wrote to"},
        explains=("HOST-DISK-001",),
        references=("Linux: ENOSPC", "df"),
    ),
    Rule(
        id="HOST-PERM-001",
        title="Permission denied",
        domain=Domain.LAUNCH,
        cause="{who} may not open or run {path}",
        remedy="owner and mode of that path on that node, and chmod +x for a script",
        weight=65,
        signs=(
            _rust("1|13"),
            sign(
                "Permission denied",
                r"PermissionError: \[Errno 13\] Permission denied: '?(?P<path>[^']{1,200})",
            ),
            sign(
                "Permission denied",
                r"(?:^|\s)(?:/bin/)?(?:ba|da|z)?sh: (?:line )?(?:\d{1,6}: )?"
                r"(?P<path>[^ :]{1,200}): Permission denied",
            ),
            sign("ermission denied", r"execve\(\): (?P<path>[^ :]{1,200}): Permission denied"),
            sign(
                "ermission denied",
                r"(?:mkdir|cp|mv|rm|touch|cat|ln|tee|chmod): "
                r".{0,30}['\u2018](?P<path>[^'\u2019]{1,200})['\u2019]: Perm",
            ),
            sign(
                "ermission denied",
                r"exec:? \"?(?P<path>/[^ :\"]{1,200})\"?: [Pp]ermission denied",
            ),
            sign(
                "Operation not permitted",
                r"PermissionError: \[Errno 1\] Operation not permitted: '?(?P<path>[^']{1,200})",
            ),
            sign("ermission denied", r"(?P<path>/[^ :\]]{1,200}): Permission denied$"),
            sign("A call to mkdir was unable", around=_MKDIR % "Permission denied"),
        ),
        defaults={"path": "a file"},
        references=("Linux: EACCES",),
    ),
    Rule(
        id="HOST-FILE-001",
        title="A file is missing",
        domain=Domain.LAUNCH,
        cause="{who} did not find {path}",
        remedy="relative paths start in the synced folder; data must lie at the same path on every "
        "node",
        weight=60,
        signs=(
            _rust("2"),
            sign(
                "No such file or directory",
                r"FileNotFoundError: \[Errno 2\] No such file or directory: '?"
                r"(?P<path>[^']{1,200})",
            ),
            sign(
                "[Errno 2] No such file or directory",
                r"(?:nexpected error|ailed|annot|nable to).{0,200}\[Errno 2\] No such file or "
                r"directory: '(?P<path>[^']{1,200})",
            ),
            sign("Error opening engine file", r"Error opening engine file: (?P<path>\S{1,200})"),
            sign("NotADirectoryError", r"NotADirectoryError: .{0,80}'(?P<path>[^']{1,200})"),
            sign(
                "couldn't chdir to",
                r"couldn't chdir to [`'](?P<path>[^'`]{1,200})': No such file",
                confidence=Confidence.LIKELY,
            ),
            sign(
                "No such file or directory",
                r"(?:cat|cp|ls|mv|source|sed|tail|head|tar): "
                r".{0,40}?['\u2018]?(?P<path>[\w./-]{1,200})['\u2019]?: "
                r"No such file",
                confidence=Confidence.POSSIBLE,
            ),
            sign("A call to mkdir was unable", around=_MKDIR % "No such file or directory"),
            sign("Unable to find data file", r"Unable to find .{0,20}file (?P<path>\S{1,200})"),
        ),
        defaults={"path": "a file"},
        references=("Linux: ENOENT",),
    ),
    Rule(
        id="HOST-LIMIT-001",
        title="Too many open files or threads",
        domain=Domain.HOST,
        cause="{who} reached a limit of its user on that node ({detail})",
        remedy="ulimit -n and -u in the shell that starts ranks; fewer data-loader workers, and "
        "OMP_NUM_THREADS",
        confidence=Confidence.CERTAIN,
        weight=75,
        signs=(
            _rust("11|23|24", _KIND),
            sign("Too many open files", r"(?P<detail>Too many open files)"),
            sign(
                "items of ancdata",
                r"received \d{1,4} items of ancdata",
                detail="too many open files: a descriptor could not be received",
                confidence=Confidence.LIKELY,
            ),
            sign("pthread_create failed", r"(?P<detail>pthread_create failed)"),
            sign("can't start new thread", r"(?P<detail>can't start new thread)"),
            sign(
                "Resource temporarily unavailable", r"fork: .{0,20}(?P<detail>Resource temporarily)"
            ),
            sign(
                "Resource temporarily unavailable",
                r"(?P<detail>BlockingIOError: \[Errno 11\] Resource temporarily unavailable)",
            ),
            sign("Thread creation failed", r"(?P<detail>Thread creation failed)"),
            sign("OMP: ", r"OMP: (?P<detail>Error #34\b.{0,90}|System error #11\b.{0,60})"),
            sign("inotify", r"(?P<detail>inotify .{0,20}limit reached|inotify_add_watch)"),
        ),
        defaults={"detail": "limit"},
        references=("Linux: RLIMIT_NOFILE, RLIMIT_NPROC",),
    ),
    Rule(
        id="HOST-IO-001",
        title="The file system failed",
        domain=Domain.HOST,
        cause="the file system of {where} failed ({detail}){path}",
        remedy="dmesg and mount on the node; an NFS or parallel file system needs to be mounted "
        "again",
        advice=Advice.EXCLUDE_NODE,
        weight=75,
        signs=(
            _rust(_DEVICE, _KIND),
            sign("Stale file handle", r"(?P<detail>Stale file handle)(?P<path>: '[^']{1,200}')?"),
            sign(
                "[Errno 5]", r"\[Errno 5\] (?P<detail>Input/output error)(?P<path>: '[^']{1,200}')?"
            ),
            sign(
                "I/O error, dev", r"blk_update_request: (?P<detail>.{0,20}I/O error, dev \w{1,20})"
            ),
            sign("I/O error, dev", r"(?P<detail>I/O error, dev \w{1,20})"),
            sign(
                "Transport endpoint is not connected",
                r"(?P<detail>Transport endpoint is not connected)",
            ),
            sign("Read-only file system", r"(?P<detail>Read-only file system)"),
            sign("not responding", r"(?P<detail>nfs: server \S{1,80} not responding)"),
            sign("LustreError", r"(?P<detail>LustreError): .{0,80}"),
            sign("No locks available", r"(?P<detail>No locks available)"),
            sign("controller is down", r"(?P<detail>nvme\d{0,3}: controller is down)"),
            sign("EXT4-fs error", r"(?P<detail>EXT4-fs error .{1,80})"),
            sign("Shutting down filesystem", r"(?P<detail>XFS .{1,60}Shutting down filesystem)"),
            sign("Remote I/O error", r"(?P<detail>Remote I/O error)"),
            sign("Structure needs cleaning", r"(?P<detail>Structure needs cleaning)"),
            sign(
                "transport endpoint shutdown",
                r"(?P<detail>Cannot send after transport endpoint shutdown)"
                r"(?P<path>: '[^']{1,200}')?",
            ),
            # Whatever its words: an operation on a file met an error of the device or its server.
            sign(
                "[Errno ",
                rf"\[Errno (?:{_DEVICE})\] "
                r"(?P<detail>[A-Z][\w /-]{3,60})(?P<path>: '[^']{1,200}')",
            ),
        ),
        defaults={"detail": "input/output error", "path": ""},
        references=("Linux: ESTALE, EIO, EROFS",),
    ),
)
