"""A real PostgreSQL server in a folder of its own, as a user without privileges."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.time_limits import scaled

USER = "nobody"
DEBIAN = Path("/usr/lib/postgresql")


def find_programs() -> Path | None:
    """The folder of ``initdb`` and its like, of the newest version; None = not installed."""
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@contextmanager
def postgres_server(folder: Path, programs: Path) -> Iterator[str]:
    """A URL while the server runs. It listens on a socket in ``folder`` alone, on no port."""
    data, sockets = folder / "data", folder / "s"
    sockets.mkdir(parents=True)
    if os.geteuid() == 0:
        owner = pwd.getpwnam(USER)
        for path in (folder, sockets):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    make = ["--auth=trust", "--username=runs", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
    _run(programs / "initdb", *make, f"--pgdata={data}")
    options = f"-c listen_addresses='' -c unix_socket_directories={sockets} -c fsync=off"
    control = (programs / "pg_ctl", f"--pgdata={data}", "--wait")
    log = f"--log={folder / 'log'}"
    _run(*control, log, f"--options={options}", f"--timeout={scaled(60):.0f}", "start")
    try:
        yield f"postgresql://runs@/postgres?host={sockets}"
    finally:
        _run(*control, "--mode=immediate", f"--timeout={scaled(60):.0f}", "stop")


def _run(program: Path, *arguments: str) -> None:
    user = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": ()}
    done = subprocess.run(
        [program, *arguments],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "start" not in arguments else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        timeout=scaled(120),
        check=False,
        **(user if os.geteuid() == 0 else {}),  # type: ignore[call-overload]
    )
    assert done.returncode == 0, (program, done.stdout)
