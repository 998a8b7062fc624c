"""Put a set of hosts together and take it apart; the only place that knows the order."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from . import cgroups, files, network, slurm
from .guest import Setup
from .pipes import PACKAGE, Child
from .processes import Process, VirtualHostsError, kill_all, run_command
from .state import STATE_FILE, Host, Options, State, dump_state, set_id, write_text

MARKER = ".virtual-hosts"
MADE_HERE = (
    STATE_FILE, "hosts", "ssh_config", "known_hosts", "id_ed25519", "id_ed25519.pub",
    "inventory.yaml",
)  # fmt: skip
REQUIRED_TOOLS = {
    "/usr/sbin/sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "tc": "iproute2",
    "iptables-restore": "iptables",
    "nsenter": "util-linux",
}
PRIVATE_TREES = ("/root", "/home", "/tmp", "/run", "/var/tmp")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,20}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_SIZE = re.compile(r"[1-9]\d*[kmg]?")
_LOCK_SECONDS = 120.0


def check_machine() -> None:
    """Raises VirtualHostsError when this user or machine cannot make hosts."""
    if os.geteuid() != 0:
        raise VirtualHostsError("virtual hosts need root: namespaces, mounts and links are made")
    _check_tools(REQUIRED_TOOLS)


def _check_tools(tools: Mapping[str, str]) -> None:
    missing = {package for tool, package in tools.items() if shutil.which(tool) is None}
    if missing:
        raise VirtualHostsError(f"missing tools; next: apt-get install {' '.join(sorted(missing))}")


def check_options(options: Options) -> None:
    """Raises VirtualHostsError naming the option that cannot work."""
    if options.slurm:
        _check_tools(slurm.TOOLS)
    rules = (
        ("N", 1 <= options.count <= 252, "1 to 252 hosts"),
        ("--name-prefix", _NAME.fullmatch(options.name_prefix), "a-z, 0-9 and -, a letter first"),
        ("--user", _USER.fullmatch(options.user), "a login name"),
        ("--home-size", _SIZE.fullmatch(options.home_size or "1"), "a size such as 64m"),
        ("--cpus", options.cpus is None or options.cpus > 0, "a number above 0"),
    )
    for name, valid, expected in rules:
        if not valid:
            raise VirtualHostsError(f"{name}: expected {expected}")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of one directory (flock on the directory itself: no file is left behind)."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _wait_for_lock(descriptor, directory, deadline)
            if _is_still(descriptor, directory):
                yield
                return
        finally:
            os.close(descriptor)


def build(directory: Path, options: Options) -> State:
    """Make the hosts; the caller holds the directory's lock.  On any error nothing remains."""
    (directory / MARKER).touch()
    children: list[Child] = []
    try:
        state = _build(directory, options, children)
        write_text(directory / STATE_FILE, dump_state(state))
        for child in children:
            child.keep()
        return state
    except BaseException:
        for child in children:
            child.abandon()
        dismantle(directory, [])
        remove_if_empty(directory)
        raise


def dismantle(directory: Path, processes: Sequence[Process]) -> None:
    """Remove all that `build` made for this directory, whole or in part."""
    group = set_id(directory)
    network.remove_coordinator(_interface(group))
    kill_all(processes)
    cgroups.remove(_group(group))
    for name in (*MADE_HERE, MARKER):
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_if_empty(directory: Path) -> None:
    if not any(directory.iterdir()):
        directory.rmdir()


def restart_host(state: State, host: Host) -> None:
    """Power-cycle: cut the cable, kill everything, boot with a new boot id and the same name."""
    network.disconnect_host(state.fabric.pid, host)
    kill_all([host.process])
    host.boot_id = _write_boot_id(Path(state.directory), host.name)
    child = _start_guest(state, host)
    try:
        host.process = child.wait_detached()
        child.expect("booted")
        network.connect_hosts(state.fabric.pid, [host])
        child.say("network")
        child.expect("ready")
        _start_slurm(state, [host])
        child.keep()
    except BaseException:
        child.abandon()
        raise


def enter_argv(host: Host, argv: Sequence[str]) -> list[str]:
    """argv that runs `argv` as root inside the host, in /root, with a login's environment."""
    return [
        *("env", f"PYTHONPATH={PACKAGE.parent}", sys.executable, "-S", "-B"),
        *("-m", f"{PACKAGE.name}.enter", str(host.process.pid), *host.cgroups, "--"),
        *argv,
    ]


def machine_path(host: Host, path: str) -> Path:
    """A path inside the running host, as the machine can open it."""
    return Path(f"/proc/{host.process.pid}/root{path}")


def _build(directory: Path, options: Options, children: list[Child]) -> State:
    names = [f"{options.name_prefix}{number + 1}" for number in range(options.count)]
    shared = _shared_paths(options)
    _prepare_files(directory, options, names)
    fabric = _start_fabric(directory, options, names)
    children.append(fabric)
    fabric_process = fabric.wait_detached()
    fabric.expect("ready")
    group = set_id(directory)
    with locked(Path("/run")):  # no other set may choose the same subnet meanwhile
        taken = network.networks_in_use()
        subnet = network.choose_subnet(options.network, options.count, taken)
        network.connect_coordinator(_interface(group), subnet, fabric_process.pid)
    state = State(
        directory=str(directory),
        subnet=str(subnet),
        coordinator=network.coordinator_address(subnet),
        fabric=fabric_process,
        options=options,
        shared=shared,
        hosts=[],
    )
    _boot_hosts(state, names, children)
    _write_client_files(state)
    return state


def _boot_hosts(state: State, names: Sequence[str], children: list[Child]) -> None:
    directory, subnet = Path(state.directory), ipaddress.IPv4Network(state.subnet)
    group = _group(set_id(directory))
    unborn = Process(0, 0)
    for index, name in enumerate(names, start=1):
        address = network.host_address(subnet, index)
        groups = cgroups.create(group, name, state.options.cpus)
        boot_id = _write_boot_id(directory, name)
        state.hosts.append(
            Host(name=name, index=index, address=address, boot_id=boot_id, process=unborn,
                 cgroups=groups)
        )  # fmt: skip
    _write_guest_files(state)
    network.apply_rules(state)
    started: list[Child] = []
    for host in state.hosts:
        started.append(_start_guest(state, host))
        children.append(started[-1])
    for host, child in zip(state.hosts, started, strict=True):
        host.process = child.wait_detached()
    for child in started:
        child.expect("booted")
    network.connect_hosts(state.fabric.pid, state.hosts)
    for child in started:
        child.say("network")
    for child in started:
        child.expect("ready")
    _start_slurm(state, state.hosts)


def _start_slurm(state: State, hosts: Sequence[Host]) -> None:
    if not state.options.slurm:
        return
    first = state.hosts[0]
    for host in hosts:
        slurm.start(host.name, enter_argv(host, []), controller=host is first)
    slurm.wait(enter_argv(first, []), len(state.hosts))


def _start_fabric(directory: Path, options: Options, names: Sequence[str]) -> Child:
    homes = {}
    if options.home_size is not None:
        homes = {f"{directory}/hosts/{name}/home": options.home_size for name in names}
    return Child("fabric", json.dumps(homes), label=[str(directory)])


def _start_guest(state: State, host: Host) -> Child:
    options = state.options
    setup = Setup(
        name=host.name,
        address=host.address,
        prefix_length=ipaddress.IPv4Network(state.subnet).prefixlen,
        directory=f"{state.directory}/hosts/{host.name}",
        set_directory=state.directory,
        home=files.home_directory(options.user),
        home_owner=_owner(options),
        share=state.shared,
        cgroup=any(Path(path, "cgroup.controllers").exists() for path in host.cgroups),
    )
    # The fabric's mount namespace holds the size-limited homes.
    prefix = cgroups.join_prefix(host.cgroups)
    prefix += ["nsenter", f"--mount=/proc/{state.fabric.pid}/ns/mnt", "--"]
    return Child("guest", json.dumps(asdict(setup)), prefix, [state.directory, host.name])


def _shared_paths(options: Options) -> list[str]:
    """What a host's own /tmp, /root or /home would hide: the interpreter and `--share`."""
    missing = [path for path in options.share if not os.path.exists(path)]
    if missing:
        raise VirtualHostsError(f"--share {missing[0]}: no such file or directory")
    wanted = set(options.share)
    if options.python:
        script = "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"
        prefixes = run_command([options.python, "-I", "-c", script]).splitlines()
        wanted.update(*((path, os.path.realpath(path)) for path in prefixes))
    trees = tuple(f"{tree}/" for tree in PRIVATE_TREES)
    return sorted(path for path in wanted if path.startswith(trees))


def _prepare_files(directory: Path, options: Options, names: Sequence[str]) -> None:
    _make_key(directory / "id_ed25519", "virtual-hosts")
    banner, config = files.NOISE + "\n", files.sshd_config(options)
    passwd = files.passwd(Path("/etc/passwd").read_text(), options.user)
    group = files.group(Path("/etc/group").read_text(), options.user)
    for name in names:
        top = directory / "hosts" / name
        for path in ("home", "var-tmp", "ssh", "etc"):
            (top / path).mkdir(parents=True)
        (top / "home").chmod(0o700)
        (top / "var-tmp").chmod(0o1777)
        _make_key(top / "ssh/ssh_host_ed25519_key", name)
        write_text(top / "ssh/sshd_config", config)
        write_text(top / "ssh/banner", banner)
        write_text(top / "etc/passwd", passwd)
        write_text(top / "etc/group", group)
        write_text(top / "etc/shadow", files.shadow(passwd), 0o640)
        write_text(top / "etc/hostname", name + "\n")
        write_text(top / "etc/machine-id", uuid.uuid4().hex + "\n")
        for file, text in files.podman(options.user).items():
            (top / "etc" / file).parent.mkdir(exist_ok=True)
            write_text(top / "etc" / file, text)
    if options.slurm:
        slurm.write_files([directory / "hosts" / name / "etc" for name in names], names)


def _write_guest_files(state: State) -> None:
    directory, owner = Path(state.directory), _owner(state.options)
    public_key = (directory / "id_ed25519.pub").read_text()
    table = [(host.address, host.name) for host in state.hosts]
    for host in state.hosts:
        top = directory / "hosts" / host.name
        write_text(top / "etc/hosts", files.etc_hosts(table, state.coordinator))
        home = Path(f"/proc/{state.fabric.pid}/root{top}/home")  # where a limited home is mounted
        (home / ".ssh").mkdir(0o700)
        write_text(home / ".ssh/authorized_keys", public_key, 0o600)
        write_text(home / ".bashrc", files.bashrc(state.options))
        write_text(home / ".profile", '[ -n "$BASH" ] && . ~/.bashrc\n')
        for path in (".ssh", ".ssh/authorized_keys", ".bashrc", ".profile"):
            os.chown(home / path, owner, owner)


def _write_client_files(state: State) -> None:
    directory = Path(state.directory)
    keys = {host.name: _public_key(directory, host.name) for host in state.hosts}
    write_text(directory / "known_hosts", files.known_hosts(state.hosts, keys))
    write_text(directory / "ssh_config", files.ssh_config(state))
    write_text(directory / "inventory.yaml", files.inventory(state))


def _public_key(directory: Path, name: str) -> str:
    text = (directory / "hosts" / name / "ssh/ssh_host_ed25519_key.pub").read_text()
    return " ".join(text.split()[:2])


def _write_boot_id(directory: Path, name: str) -> str:
    boot_id = str(uuid.uuid4())
    write_text(directory / "hosts" / name / "boot_id", boot_id + "\n")
    return boot_id


def _make_key(path: Path, comment: str) -> None:
    run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def _owner(options: Options) -> int:
    return 0 if options.user == "root" else 1000


def _interface(group: str) -> str:
    return f"vhosts-{group}"


def _group(identifier: str) -> str:
    return f"virtual-hosts-{identifier}"


def _wait_for_lock(descriptor: int, directory: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise VirtualHostsError(f"{directory} is in use by another command") from None
            time.sleep(0.02)


def _is_still(descriptor: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(directory))
    except FileNotFoundError:
        return False
