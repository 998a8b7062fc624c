"""The few system calls that Python 3.11 does not offer: namespaces and mounts."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_SYS_MOUNT_SETATTR = 442  # one number on every architecture since Linux 5.12
_PR_SET_PDEATHSIG = 1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the caller (for CLONE_NEWPID: its next child) into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def set_namespace(descriptor: int) -> None:
    """Join the namespace that an open /proc/PID/ns file names (pid: the next child joins)."""
    _check(_libc.setns(descriptor, 0), "setns")


def die_with_parent() -> None:
    """Have the kernel kill the caller when the thread that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind),
        ctypes.c_ulong(flags),
        os.fsencode(options),
    )
    _check(result, f"mount {kind or source} on {target}")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Bind-mount `source` on `target`; the clone does not keep the source mount's write flag."""
    mount(source, target, flags=MS_BIND)
    mount("", target, flags=MS_REMOUNT | MS_BIND | (MS_RDONLY if read_only else 0))


def make_private(target: str) -> None:
    """Stop mount events from travelling between `target` and its peers, recursively."""
    mount("", target, flags=MS_REC | MS_PRIVATE)


def make_read_only(target: str) -> None:
    """Make every mount at and below `target` read-only in this mount namespace (Linux 5.12)."""
    attributes = struct.pack("=4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
    )
    _check(result, f"mount_setattr {target} (needs Linux 5.12)")
