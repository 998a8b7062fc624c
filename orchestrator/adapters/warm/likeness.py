"""What a process is, besides its program: what a fork of another process must have in common with
the one that it stands in for.

Read by the client of every command, so that it imports nothing that is not there at Python's start.
"""

from __future__ import annotations

import os
import sys

# Of /proc/self/status: who it is, what it may do, where it may run, and what its files will be.
_STATUS = (
    b"Umask:",
    b"Uid:",
    b"Gid:",
    b"Groups:",
    b"NStgid:",
    b"Cap",
    b"NoNewPrivs:",
    b"Seccomp",
    b"Cpus_allowed:",
    b"Mems_allowed:",
)
# A pid namespace of its own has a further number; the numbers themselves differ.
_COUNTED = b"NStgid:"
_FILES = (
    "/proc/sys/kernel/random/boot_id",
    "/proc/self/cgroup",
    "/proc/self/limits",
    "/proc/self/attr/current",
    "/proc/self/loginuid",
    "/proc/self/sessionid",
    "/proc/self/oom_score_adj",
    "/proc/self/personality",
    "/proc/self/timerslack_ns",
    "/proc/self/coredump_filter",
)
# What the interpreter, the loader, the C library and the libraries that are loaded read once.
_READ_AT_START = (
    b"PYTHON",
    b"_PYTHON",
    b"LD_",
    b"LIBRARY_PATH",
    b"RUAMEL_",
    b"LC_",
    b"LANG",
    b"MALLOC_",
    b"GLIBC_TUNABLES",
    b"OPENSSL_",
    b"CRYPTOGRAPHY_",
    b"PYDANTIC_",
    b"SSLKEYLOGFILE",
    b"LOCPATH",
    b"NLSPATH",
    b"GCONV_PATH",
)
# What differs between a client and a warm process by design: neither looks for modules in the
# working directory, and a client does without `site`.
_OF_THE_START = frozenset(("no_site", "safe_path"))
_MAX_BYTES = 1 << 16


def describe_process() -> bytes:
    """All of it as lines; of two processes that say the same, either can do the other's work.

    Raises ``OSError`` where the system does not say.
    """
    root = os.stat("/")
    parts = [*_interpreter(), b"%d:%d" % (root.st_dev, root.st_ino), *_scheduling()]
    parts += [_read(name) for name in _FILES]
    parts += [line for line in map(_status_line, _read("/proc/self/status").split(b"\n")) if line]
    parts += [
        os.fsencode(os.readlink(f"/proc/self/ns/{name}"))
        for name in sorted(os.listdir("/proc/self/ns"))
    ]
    return b"\n".join(parts)


def variables_read_at_start(environ: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of ``environ`` that have done their work once Python runs."""
    return {name: value for name, value in environ.items() if name.startswith(_READ_AT_START)}


def _interpreter() -> list[bytes]:
    variables = variables_read_at_start(dict(os.environb))
    flags = [flag for name, flag in _flags() if name not in _OF_THE_START]
    options = (sys.warnoptions, sys._xoptions)  # noqa: SLF001 - documented, in spite of its name
    who = f"{sys.executable} {sys.version} {__file__} {flags} {options}"
    return [os.fsencode(who), *(b"%s=%s" % item for item in sorted(variables.items()))]


def _flags() -> list[tuple[str, int]]:
    names = [name for name in dir(sys.flags) if name.islower() and not name.startswith("_")]
    return [(n, v) for n in names if isinstance(v := getattr(sys.flags, n), int)]


def _scheduling() -> list[bytes]:
    nice, kind = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    return [b"%d %d %d" % (nice, kind, os.sched_getparam(0).sched_priority)]


def _status_line(line: bytes) -> bytes:
    if not line.startswith(_STATUS):
        return b""
    return b"%d" % len(line.split()) if line.startswith(_COUNTED) else line


def _read(name: str) -> bytes:
    """What a file of the kernel says; nothing where this kernel has none, or keeps it to itself."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _MAX_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
