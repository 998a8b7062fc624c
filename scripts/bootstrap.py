"""Build the virtual environment ``.venv/NAME-MACHINE-DIGEST`` from ``requirements/NAME.lock``.

``bootstrap.py ROOT NAME`` prints the environment's path on stdout and its progress on stderr. The
digest covers the lock and the interpreter's ABI, so a changed lock or Python means a new
environment, and one that is in use is never touched. Environments of earlier locks are named, not
removed: a run may still be using them. What is not covered: Windows.

Exit status: 0 the environment is ready; 2 it cannot be built, with the reason; 130 and 143
interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD_LIMIT_S = 1800.0  # a slow mirror needs minutes for the workloads' packages; longer is a hang
STOP_LIMIT_S = 5.0
HEARTBEAT_S, RARE_HEARTBEAT_S = 4.0, 30.0  # to a terminal, and to whatever keeps what is said
LOCK_POLL_S = 0.1
POLL_S = 1.0
LOG_TAIL_LINES = 15


class BootstrapError(Exception):
    """The environment cannot be built; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One virtual environment and the files around it."""

    root: Path  # of the checkout
    name: str

    @property
    def lock(self) -> Path:
        """The exact versions that it is made of."""
        return self.root / "requirements" / f"{self.name}.lock"

    @property
    def path(self) -> Path:
        """Where it stands; another lock or another ABI stands elsewhere."""
        identity = self.lock.read_bytes() + str(sysconfig.get_config_var("SOABI")).encode()
        digest = hashlib.sha256(identity).hexdigest()[:12]
        return self.root / ".venv" / f"{self.name}-{platform.machine()}-{digest}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def ready(self) -> Path:
        """A copy of the lock; written last, so that its existence means completion."""
        return self.path / "ready"

    @property
    def log(self) -> Path:
        """What venv and pip said while it was built."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def guard(self) -> Path:
        """Locked by whoever is building it."""
        return self.path.with_name(f".{self.path.name}.guard")

    def is_ready(self) -> bool:
        """Whether it is complete and its interpreter is still installed."""
        return os.access(self.python, os.X_OK) and self.ready.exists()


def main() -> int:
    """Prints the path of a ready environment, built if needed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    root, name = sys.argv[1:]
    environment = Environment(root=Path(root), name=name)
    try:
        if not environment.is_ready():
            with exclusive(environment) as guard:
                if not environment.is_ready():  # another process may have built it meanwhile
                    build(environment, guard)
    except BootstrapError as error:
        say(f"cannot build the environment {name!r}: {error}")
        return 2
    except OSError as error:
        say(f"cannot build the environment {name!r}: {error}. The checkout must be writable.")
        return 2
    except KeyboardInterrupt:
        say("interrupted; the next call starts afresh")
        return 128 + signal.SIGINT
    print(environment.path)
    return 0


@contextlib.contextmanager
def exclusive(environment: Environment) -> Iterator[IO[str]]:
    """Hold the build lock; the kernel releases it with the last process that has it open."""
    environment.guard.parent.mkdir(exist_ok=True)
    with environment.guard.open("a+") as guard:
        wait_for_lock(guard, limit_s=BUILD_LIMIT_S)
        guard.truncate(0)
        guard.write(f"{os.getpid()}\n")
        guard.flush()
        yield guard


def wait_for_lock(guard: IO[str], *, limit_s: float) -> None:
    """Raises :class:`BootstrapError` when another process still builds after ``limit_s``."""
    started = told = time.monotonic()
    while not try_lock(guard):
        now = time.monotonic()
        guard.seek(0)
        builder = guard.read().strip() or "unknown"
        if now - started > limit_s:
            raise BootstrapError(
                f"process {builder} has been building it for more than {limit_s:.0f} s. "
                "If it hangs, stop it and run this again."
            )
        if told in (started, now) or now - told >= heartbeat_s():
            say(f"waiting for process {builder}, which is building it ({now - started:.0f} s)")
            told = now
        time.sleep(LOCK_POLL_S)


def try_lock(guard: IO[str]) -> bool:
    """Whether the lock is now ours."""
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def build(environment: Environment, guard: IO[str]) -> None:
    """Build it from nothing; what an interrupted build left is removed first."""
    require_venv()
    started = time.monotonic()
    say(f"first use with these requirements: building {environment.path}")
    if environment.path.exists():
        shutil.rmtree(environment.path)
    with environment.log.open("w") as log:
        # The real path: /usr/bin/python3 may point at another version tomorrow.
        interpreter = os.path.realpath(sys.executable)
        venv = [interpreter, "-I", "-m", "venv", str(environment.path)]
        run_stage(f"virtual environment with Python {platform.python_version()}", venv, log, guard)
        pins = count_pins(environment.lock)
        if pins:
            run_stage(f"{pins} packages", pip_command(environment), log, guard)
    put_checkout_on_path(environment)
    mark_ready(environment)
    say(f"ready after {time.monotonic() - started:.0f} s")
    name_earlier(environment)


def require_venv() -> None:
    """Raises :class:`BootstrapError` on a Python that was stripped of its venv parts."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise BootstrapError(
            f"{sys.executable} comes without {' and '.join(missing)}. "
            f"Debian, Ubuntu: apt install python{version}-venv. "
            "Or name another interpreter with ORCHESTRATE_PYTHON=/path/to/python3.11."
        )


def count_pins(lock: Path) -> int:
    """How many packages the lock lists."""
    lines = (line.partition("#")[0].strip() for line in lock.read_text().splitlines())
    return sum(1 for line in lines if line and not line.startswith("-"))


def pip_command(environment: Environment) -> list[str]:
    """Install what the lock lists.

    Dependencies are not left out: where an index serves another build of a package that needs
    more than the lock lists (torch with CUDA), the result must still work.
    """
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--no-color"]
    pip = [str(environment.python), "-I", "-m", "pip", "install", *options]
    return [*pip, "--requirement", str(environment.lock)]


def run_stage(title: str, argv: list[str], log: IO[str], guard: IO[str]) -> None:
    """Run one command with its output in the log and signs of life on stderr.

    The command inherits the lock: if this process is killed, nobody else builds in the same place
    before the command is gone too. It ends soon, because its output has lost its reader.
    """
    started = time.monotonic()
    say(f"  {title} ...")
    # A pip.conf made for the user's own packages must not send these elsewhere.
    clean = {
        key: value for key, value in os.environ.items() if key not in {"PIP_TARGET", "PIP_PREFIX"}
    }
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**clean, "PIP_USER": "0"},
        pass_fds=(guard.fileno(),),
        start_new_session=True,
    )
    with process:
        try:
            follow(process, log, started=started)
        except BaseException:
            stop(process)
            raise
    if process.returncode != 0:
        fail(title, process.returncode, Path(log.name))
    say(f"  {title}: {time.monotonic() - started:.1f} s")


def follow(process: subprocess.Popen[bytes], log: IO[str], *, started: float) -> None:
    """Copy the output to the log until it ends; say the last line now and then.

    Raises :class:`BootstrapError` at ``BUILD_LIMIT_S``.
    """
    assert process.stdout is not None
    stream, told, last = process.stdout.fileno(), started, b""
    while True:
        readable, _, _ = select.select([stream], [], [], POLL_S)
        if readable:
            chunk = os.read(stream, 65536)
            if not chunk:
                return
            log.write(chunk.decode(errors="replace"))
            log.flush()
            last = ([line for line in chunk.splitlines() if line.strip()] or [last])[-1]
        now = time.monotonic()
        if now - started > BUILD_LIMIT_S:
            raise BootstrapError(f"not done after {BUILD_LIMIT_S:.0f} s; see {log.name}")
        if now - told >= heartbeat_s():
            text = last.decode(errors="replace").strip()[:60]
            say(f"    {now - started:3.0f} s  {text or 'still at it'}")
            told = now


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the command and its children, which share its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_S)
            return


def fail(title: str, status: int, log: Path) -> NoReturn:
    """Raises :class:`BootstrapError` with the end of the log."""
    tail = log.read_text().splitlines()[-LOG_TAIL_LINES:]
    raise BootstrapError(
        f"{title}: exit status {status}. The last lines of {log}:\n"
        + "\n".join(f"    {line}" for line in tail)
        + "\n  If the package index cannot be reached, set PIP_INDEX_URL or PIP_PROXY."
    )


def put_checkout_on_path(environment: Environment) -> None:
    """Import the packages of the checkout itself; relative, so that the checkout may be moved."""
    (site_packages,) = environment.path.glob("lib/python3*/site-packages")
    relative = os.path.relpath(environment.root, site_packages)
    (site_packages / "orchestrate-checkout.pth").write_text(f"{relative}\n")


def mark_ready(environment: Environment) -> None:
    """Write the marker as a whole or not at all."""
    partial = environment.ready.with_suffix(".partial")
    with partial.open("wb") as marker:
        marker.write(environment.lock.read_bytes())
        marker.flush()
        os.fsync(marker.fileno())
    partial.replace(environment.ready)


def name_earlier(environment: Environment) -> None:
    """Tell of environments that other locks left behind; a run may use them still."""
    kind = f"{environment.name}-{platform.machine()}-*/ready"
    lock = environment.lock.read_bytes()
    earlier = [
        marker.parent
        for marker in sorted(environment.path.parent.glob(kind))
        if marker.read_bytes() != lock
    ]
    if earlier:
        say("  of earlier requirements, to be deleted when nothing runs from them:")
        for path in earlier:
            say(f"    {path}")


def heartbeat_s() -> float:
    """How long nothing is said while a stage takes long."""
    return HEARTBEAT_S if sys.stderr.isatty() else RARE_HEARTBEAT_S


def say(message: str) -> None:
    """One line of progress."""
    print(f"orchestrate: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
