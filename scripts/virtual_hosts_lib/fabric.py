"""The process that holds a set's routing fabric, started as `python -m virtual_hosts_lib.fabric`.

Its network namespace joins the cables; its mount namespace holds the size-limited homes, so that
they outlive a reboot of their host.  Both vanish with the process.  Protocol (pipes.py): one line
of JSON ({home path: size}), answers "pid N" and "ready", then "keep".
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import NoReturn

from . import kernel, pipes

_SYSCTL = Path("/proc/sys/net/ipv4")


def main() -> NoReturn:
    homes: dict[str, str] = json.loads(pipes.read_line())
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
    pipes.detach()
    kernel.make_private("/")
    for path, size in homes.items():
        kernel.mount("tmpfs", path, "tmpfs", 0, f"size={size},mode=700")
    (_SYSCTL / "ip_forward").write_text("1")
    (_SYSCTL / "conf/all/proxy_arp").write_text("1")
    pipes.report("ready")
    pipes.await_word("keep")
    pipes.let_go()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
