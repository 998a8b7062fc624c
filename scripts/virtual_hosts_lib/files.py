"""Every file that the hosts and their clients read, as text."""

from __future__ import annotations

import json
import resource
import shlex
from pathlib import Path

from .state import Host, Options, State

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
PODMAN_SETTINGS = "/etc/containers"
NOISE = "*** this login shell talks: maintenance on Sunday ***"


def inventory(state: State) -> str:
    """The inventory that orchestrate reads; JSON values are valid YAML, so quoting is exact."""
    count, prefix = len(state.hosts), state.options.name_prefix
    nodes = f"{prefix}[1-{count}]" if count > 1 else f"{prefix}1"
    return (
        "name: virtual\n"
        "defaults:\n"
        f"  user: {json.dumps(state.options.user)}\n"
        f"  ssh_config: {json.dumps(state.directory + '/ssh_config')}\n"
        f"  python: {{interpreter: {json.dumps(state.options.python)}}}\n"
        f"nodes: [{json.dumps(nodes)}]\n"
    )


def ssh_config(state: State) -> str:
    blocks = [f"Host {host.name}\n  HostName {host.address}\n" for host in state.hosts]
    names = " ".join(host.name for host in state.hosts)
    directory = state.directory
    common = (
        f"Host {names}\n"
        f"  User {state.options.user}\n"
        f'  IdentityFile "{directory}/id_ed25519"\n'
        "  IdentitiesOnly yes\n"
        f'  UserKnownHostsFile "{directory}/known_hosts"\n'
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  ControlMaster no\n"
        "  ControlPath none\n"
    )
    return "".join(blocks) + common


def known_hosts(hosts: list[Host], host_keys: dict[str, str]) -> str:
    """One line per host; `host_keys` maps a name to its public key ("type base64")."""
    return "".join(f"{host.name},{host.address} {host_keys[host.name]}\n" for host in hosts)


def sshd_config(options: Options) -> str:
    lines = [
        "Port 22",
        "AddressFamily inet",
        f"HostKey {HOST_KEY}",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PubkeyAuthentication yes",
        "AuthorizedKeysFile .ssh/authorized_keys",
        "UsePAM no",
        "UseDNS no",
        "PrintMotd no",
        "X11Forwarding no",
        "AcceptEnv LANG LC_*",
        f"MaxStartups {options.max_startups}",
        "PidFile /run/sshd.pid",
        "Subsystem sftp internal-sftp",
    ]
    return "\n".join(lines + (["Banner /etc/ssh/banner"] if options.noisy else [])) + "\n"


def bashrc(options: Options) -> str:
    path = str(Path(options.python).parent)
    text = f"export PATH={shlex.quote(path)}:$PATH\n" if options.python else ""
    if not options.noisy:
        return text
    return text + f"echo {shlex.quote(NOISE)}\necho {shlex.quote(NOISE)} >&2\n"


def etc_hosts(state_hosts: list[tuple[str, str]], coordinator: str) -> str:
    """Name resolution inside a host; `state_hosts` holds (address, name)."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{coordinator} coordinator"]
    return "\n".join(lines + [f"{address} {name}" for address, name in state_hosts]) + "\n"


def home_directory(user: str, root_home: str = "/root") -> str:
    return root_home if user == "root" else f"/home/{user}"


def passwd(machine_passwd: str, user: str) -> str:
    """The machine's accounts with a bash login for root and, if it is another, for `user`."""
    kept = [
        line
        for line in machine_passwd.splitlines()
        if line.split(":")[0] not in ("root", user) and line.split(":")[2:3] != ["1000"]
    ]
    lines = ["root:x:0:0:root:/root:/bin/bash"]
    if user != "root":
        lines.append(f"{user}:x:1000:1000::{home_directory(user)}:/bin/bash")
    return "\n".join(lines + kept) + "\n"


def shadow(passwd_text: str) -> str:
    """No account has a password and none is locked: keys are the only way in."""
    names = [line.split(":")[0] for line in passwd_text.splitlines() if line]
    return "".join(f"{name}:*:19000:0:99999:7:::\n" for name in names)


def group(machine_group: str, user: str) -> str:
    if user == "root":
        return machine_group
    kept = [
        line
        for line in machine_group.splitlines()
        if line.split(":")[0] != user and line.split(":")[2:3] != ["1000"]
    ]
    return "\n".join([*kept, f"{user}:x:1000:"]) + "\n"


def podman(user: str) -> dict[str, str]:
    """What podman reads in a host's /etc: no registry, and storage that is the host's own.

    It raises limits as far as a real root may, which the root of this machine need not be allowed
    to. A rootless one needs numbers below the login's.
    """
    limits = (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    most = [(name, resource.getrlimit(limit)[1]) for name, limit in limits]
    words = ", ".join(f'"{name}={limit}:{limit}"' for name, limit in most)
    return {
        "containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
        "containers/storage.conf": '[storage]\ndriver = "overlay"\n'
        'graphroot = "/var/tmp/containers"\nrunroot = "/run/containers/storage"\n',
        "containers/containers.conf": f"[containers]\ndefault_ulimits = [{words}]\n"
        '[network]\nnetwork_backend = "netavark"\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n',
        "subuid": f"{user}:100000:65536\n",
        "subgid": f"{user}:100000:65536\n",
    }
