"""A set of virtual hosts as tests and benchmarks use it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from . import assembly, cgroups, files, network, throttle
from .pipes import Child
from .processes import Process, VirtualHostsError, is_running, kill_all
from .state import (
    STATE_FILE,
    Host,
    Options,
    SlowLink,
    SlowNode,
    State,
    dump_state,
    find_processes,
    load_state,
    write_text,
)

FILLER = ".filled-by-virtual-hosts"
SlowNodeMethod = Literal["auto", "quota", "signals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """One line of `status`."""

    name: str
    address: str
    pid: int
    running: bool
    faults: list[str]


class VirtualHosts:
    """One set of hosts, named by its directory; every method reads the state anew.

    Usable as a context manager, which takes the set down at the end.  All methods raise
    VirtualHostsError with a readable message.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """A set that may or may not be up; nothing is touched."""
        self.directory = Path(os.path.realpath(directory))

    @classmethod
    def up(cls, directory: str | os.PathLike[str], options: Options) -> VirtualHosts:
        """Make the hosts, or find them running as asked; remains of a crash are removed first."""
        assembly.check_machine()
        assembly.check_options(options)
        hosts = cls(directory)
        _make_directory(hosts.directory)
        with assembly.locked(hosts.directory):
            processes = hosts._processes()
            if processes and all(map(is_running, processes)):
                _check_same(hosts.state, options)
                return hosts
            assembly.dismantle(hosts.directory, processes)
            assembly.build(hosts.directory, options)
        return hosts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def state(self) -> State:
        try:
            return load_state((self.directory / STATE_FILE).read_text())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise VirtualHostsError(
                f"no hosts at {self.directory}; next: virtual_hosts up N"
            ) from error
        except (TypeError, KeyError) as error:
            raise VirtualHostsError(
                f"{self.directory} was made by another version; next: virtual_hosts down"
            ) from error

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.state.hosts]

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory.yaml"

    @property
    def coordinator_address(self) -> str:
        """This machine's address, as the hosts see it."""
        return self.state.coordinator

    def address(self, name: str) -> str:
        return _find(self.state, name).address

    def home(self, name: str) -> Path:
        """The host's home, reachable from this machine while the host runs."""
        state = self.state
        home = files.home_directory(state.options.user)
        return assembly.machine_path(_find(state, name), home)

    def status(self) -> list[HostStatus]:
        state = self.state
        return [
            HostStatus(
                name=host.name,
                address=host.address,
                pid=host.process.pid,
                running=is_running(host.process),
                faults=state.faults.of(host.name),
            )
            for host in state.hosts
        ]

    def exec_argv(self, name: str, argv: Sequence[str]) -> list[str]:
        """argv that runs `argv` as root inside the host, in /root, with a login's environment."""
        host = _find(self.state, name)
        if not is_running(host.process):
            raise VirtualHostsError(f"{name} is not running; next: virtual_hosts reboot {name}")
        return assembly.enter_argv(host, argv)

    def exec(
        self, name: str, argv: Sequence[str], *, timeout: float = 30.0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host as root, output captured; `options` go to subprocess.run."""
        options = {"capture_output": True, "text": True, **options}
        return subprocess.run(self.exec_argv(name, argv), timeout=timeout, check=False, **options)

    def down(self) -> bool:
        """Remove everything; False when there was nothing."""
        try:
            with assembly.locked(self.directory):
                if not (self.directory / assembly.MARKER).exists():
                    return False
                assembly.dismantle(self.directory, self._processes())
                assembly.remove_if_empty(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    # Faults.  Each stays in force until healed, also across a reboot of its host.

    def cut_data(self, first: str, second: str) -> None:
        """Drop every packet between two hosts; SSH from this machine to both lives."""
        if first == second:
            raise VirtualHostsError("cut-data needs two different hosts")
        with self._changing() as state:
            pair = sorted((_find(state, first).name, _find(state, second).name))
            state.faults.cut_pairs.add((pair[0], pair[1]))
            network.apply_rules(state)

    def cut_all_data(self) -> None:
        """Drop every packet between any two hosts; SSH from this machine lives."""
        with self._changing() as state:
            state.faults.cut_pairs = state.all_pairs()
            network.apply_rules(state)

    def cut_ssh(self, name: str) -> None:
        """Drop what travels to and from the host's port 22; its other traffic lives."""
        with self._changing() as state:
            state.faults.cut_ssh.add(_find(state, name).name)
            network.apply_rules(state)

    def unplug(self, name: str) -> None:
        """Drop every packet of the host, both ways: no FIN, no RST, no error at either end."""
        with self._changing() as state:
            state.faults.unplugged.add(_find(state, name).name)
            network.apply_rules(state)

    def plug(self, name: str) -> None:
        with self._changing() as state:
            state.faults.unplugged.discard(_find(state, name).name)
            network.apply_rules(state)

    def slow_link(
        self, name: str, *, rate: str | None = None, delay_ms: float = 0.0, loss: float = 0.0
    ) -> None:
        """Limit the cable in each direction: rate ("1mbit"), one-way delay, loss in [0, 1)."""
        link = SlowLink(rate=rate, delay_ms=delay_ms, loss=loss)
        network.check_link(link)
        with self._changing() as state:
            host = _find(state, name)
            state.faults.slow_links.pop(name, None)
            network.shape_link(state.fabric.pid, host, link)
            state.faults.slow_links[name] = link
            network.apply_rules(state)

    def slow_node(self, name: str, factor: float, *, method: SlowNodeMethod = "auto") -> None:
        """Give the host 1/factor of its CPU time.

        "quota" divides the host's allowance (`cpus`, else one CPU) by factor; "signals" stops all
        of its processes for 1 - 1/factor of every 0.1 s; "auto" takes the quota where it exists.
        """
        if not 1.0 < factor <= 100.0:
            raise VirtualHostsError("--factor: expected a number above 1 and at most 100")
        with self._changing() as state:
            host = _find(state, name)
            _lift_slow_node(state, host)
            if method == "quota" or (method == "auto" and cgroups.has_cpu_controller(host.cgroups)):
                cgroups.set_cpus(host.cgroups, (state.options.cpus or 1.0) / factor)
                state.faults.slow_nodes[name] = SlowNode(factor=factor)
            else:
                process = _start_throttle(host, factor)
                state.faults.slow_nodes[name] = SlowNode(factor=factor, throttle=process)

    def fill_disk(self, name: str) -> None:
        """Fill the host's home to its last byte; needs `up` with a home size."""
        with self._changing() as state:
            if state.options.home_size is None:
                raise VirtualHostsError(
                    "fill-disk needs a limited home (the machine's own disk is not filled);"
                    " next: virtual_hosts down, then up N --home-size 64m"
                )
            _find(state, name)
            state.faults.filled.add(name)
            _fill(self.home(name) / FILLER)

    def reboot(self, name: str) -> None:
        """Power-cycle the host: no FIN, every process dies, /tmp is empty, a new boot id."""
        with self._changing() as state:
            host = _find(state, name)
            node = state.faults.slow_nodes.get(name)
            if node is not None and node.throttle is not None:
                kill_all([node.throttle])
            assembly.restart_host(state, host)
            if name in state.faults.slow_links:
                network.shape_link(state.fabric.pid, host, state.faults.slow_links[name])
            if node is not None and node.throttle is not None:
                process = _start_throttle(host, node.factor)
                state.faults.slow_nodes[name] = replace(node, throttle=process)

    def heal(self, name: str | None = None) -> None:
        """Undo every fault of one host, or of all."""
        with self._changing() as state:
            for host in [_find(state, name)] if name else state.hosts:
                _heal_host(state, host)
            network.apply_rules(state)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[State]:
        """The state under the lock, stored afterwards, also when a step failed half-way."""
        if not self.directory.is_dir():
            raise VirtualHostsError(f"no hosts at {self.directory}; next: virtual_hosts up N")
        with assembly.locked(self.directory):
            state = self.state
            if not is_running(state.fabric):
                raise VirtualHostsError(
                    f"the network of {self.directory} is gone; next: virtual_hosts down, then up N"
                )
            try:
                yield state
            finally:
                write_text(self.directory / STATE_FILE, dump_state(state))

    def _processes(self) -> list[Process]:
        """All processes of the set that the state file names."""
        try:
            return find_processes(json.loads((self.directory / STATE_FILE).read_text()))
        except FileNotFoundError:
            return []


def _find(state: State, name: str) -> Host:
    for host in state.hosts:
        if host.name == name:
            return host
    raise VirtualHostsError(f"no host {name}; there are {', '.join(h.name for h in state.hosts)}")


def _make_directory(directory: Path) -> None:
    """Make the directory; refuse one that holds somebody's files."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        entries = {path.name for path in directory.iterdir()}
        if entries and assembly.MARKER not in entries:
            raise VirtualHostsError(
                f"{directory} holds other files; choose an empty --dir"
            ) from None


def _check_same(state: State, options: Options) -> None:
    """Raises VirtualHostsError when the running set is not what is asked for now."""
    if options != state.options:
        raise VirtualHostsError(
            f"{len(state.hosts)} hosts with other options run at {state.directory};"
            f" next: virtual_hosts down --dir {state.directory}, or another --dir"
        )


def _heal_host(state: State, host: Host) -> None:
    faults, name = state.faults, host.name
    faults.cut_pairs -= network.involves(faults, name)
    faults.cut_ssh.discard(name)
    faults.unplugged.discard(name)
    alive = is_running(host.process)
    if faults.slow_links.pop(name, None) is not None and alive:
        network.shape_link(state.fabric.pid, host, None)
    _lift_slow_node(state, host)
    if name in faults.filled and alive:
        home = files.home_directory(state.options.user)
        (assembly.machine_path(host, home) / FILLER).unlink(missing_ok=True)
        faults.filled.discard(name)


def _lift_slow_node(state: State, host: Host) -> None:
    node = state.faults.slow_nodes.pop(host.name, None)
    if node is None:
        return
    if node.throttle is None:
        cgroups.set_cpus(host.cgroups, state.options.cpus)
        return
    kill_all([node.throttle])
    if is_running(host.process):
        throttle.release(host.process.pid)


def _start_throttle(host: Host, factor: float) -> Process:
    child = Child("throttle", f"{host.process.pid} {factor}")
    try:
        process = child.wait_detached()
        child.keep()
    except BaseException:
        child.abandon()
        raise
    return process


def _fill(path: Path) -> None:
    """Write until the file system has no byte left."""
    with path.open("ab", buffering=0) as stream:
        for size in (1 << 20, 4096, 1):
            block = bytes(size)
            while _write(stream.fileno(), block):
                continue


def _write(descriptor: int, block: bytes) -> bool:
    try:
        return os.write(descriptor, block) > 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return False
        raise
