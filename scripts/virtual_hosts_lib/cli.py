"""The command line of scripts/virtual_hosts."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from types import FrameType

from .hosts import VirtualHosts
from .processes import VirtualHostsError
from .state import Options

DEFAULT_DIRECTORY = "/var/lib/virtual-hosts"
_EXIT_FAILED, _EXIT_NOT_UP = 1, 4


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 usage, 4 hosts missing or dead; `exec` the command's."""
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    arguments = build_parser().parse_args(argv)
    if arguments.verb == "exec":
        _parse_late_options(arguments)
    try:
        return _perform(arguments)
    except VirtualHostsError as error:
        print(f"virtual_hosts: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except KeyboardInterrupt:
        print("virtual_hosts: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="virtual_hosts",
        description="Virtual hosts with real OpenSSH servers, made of Linux namespaces (root).",
    )
    common = _common_options()
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, help_text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help_text, description=help_text, parents=[common])

    _add_up(verb("up", "make N hosts; a second time it finds them running"))
    verb("down", "remove everything that up made")
    verb("status", "show hosts and faults").add_argument("--json", action="store_true")
    run = verb("exec", "run a command inside a host as root: exec HOST [--dir DIR] -- CMD...")
    run.add_argument("host")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    _add_faults(verb)
    return parser


def _common_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--dir", default=DEFAULT_DIRECTORY, help="where this set lives (default: %(default)s)"
    )
    return parser


def _parse_late_options(arguments: argparse.Namespace) -> None:
    """`exec HOST --dir DIR -- CMD`: everything after HOST was taken for the command. What begins
    with an option of ours is no command up to the `--`.
    """
    words = arguments.command
    if not words or not words[0].startswith("-"):
        return
    end = words.index("--") if "--" in words else len(words)
    usage = "virtual_hosts exec HOST [--dir DIR] -- CMD..."
    late = argparse.ArgumentParser(
        prog="virtual_hosts exec", usage=usage, parents=[_common_options()], add_help=False
    )
    late.parse_args(words[:end], namespace=arguments)
    arguments.command = words[end + 1 :]


def _add_up(parser: argparse.ArgumentParser) -> None:
    defaults = Options(count=1)
    add = parser.add_argument
    add("count", type=int, metavar="N")
    add("--name-prefix", default=defaults.name_prefix, help="hosts are PREFIX1..PREFIXN")
    add("--network", default=defaults.network, help="a free /24 of it is taken (%(default)s)")
    add("--user", default=defaults.user, help="login name on the hosts (%(default)s)")
    add("--python", default=sys.executable, help="interpreter for the inventory (%(default)s)")
    add("--share", action="append", default=[], metavar="PATH", help="keep visible, read-only")
    add("--home-size", metavar="SIZE", help="home on a file system of this size, such as 64m")
    add("--cpus", type=float, help="CPUs of time each host may use (default: no limit)")
    add("--max-startups", default=defaults.max_startups, help="sshd's MaxStartups (%(default)s)")
    add("--slurm", action="store_true", help="a real Slurm (slurm-wlm, munge) over the hosts")
    add("--noisy", action="store_true", help="login shell and sshd print a banner")


def _add_faults(verb: object) -> None:
    assert callable(verb)
    cut = verb("cut-data", "drop all traffic between two hosts (or: all); SSH from here lives")
    cut.add_argument("first", metavar="A")
    cut.add_argument("second", metavar="B", nargs="?")
    for name, text in (
        ("cut-ssh", "drop SSH to the host silently; its data plane lives"),
        ("unplug", "drop every packet of the host: no FIN, no RST"),
        ("plug", "undo unplug"),
        ("fill-disk", "fill the host's home (needs up --home-size)"),
        ("reboot", "power-cycle the host: same name and address, new boot id"),
    ):
        verb(name, text).add_argument("host")
    link = verb("slow-link", "limit the host's cable, in each direction")
    link.add_argument("host")
    link.add_argument("--rate", help="such as 1mbit")
    link.add_argument("--delay", type=_milliseconds, default=0.0, help="one way, such as 100ms")
    link.add_argument("--loss", type=_fraction, default=0.0, help="such as 1%%")
    node = verb("slow-node", "give the host 1/FACTOR of its CPU time")
    node.add_argument("host")
    node.add_argument("--factor", type=float, required=True)
    node.add_argument("--method", choices=("auto", "quota", "signals"), default="auto")
    verb("heal", "undo all faults of a host, or of all hosts").add_argument(
        "host", nargs="?", default="all", help="default: all"
    )


def _perform(arguments: argparse.Namespace) -> int:
    hosts = VirtualHosts(arguments.dir)
    match arguments.verb:
        case "up":
            _up(arguments)
        case "down":
            print("removed" if hosts.down() else f"nothing to remove at {hosts.directory}")
        case "status":
            return _status(hosts, as_json=arguments.json)
        case "exec":
            argv = hosts.exec_argv(arguments.host, arguments.command or ["/bin/bash"])
            os.execvp(argv[0], argv)
        case _:
            _inject(hosts, arguments)
    return 0


def _up(arguments: argparse.Namespace) -> None:
    options = Options(
        count=arguments.count,
        name_prefix=arguments.name_prefix,
        network=arguments.network,
        user=arguments.user,
        python=os.path.abspath(arguments.python) if arguments.python else "",
        home_size=arguments.home_size,
        cpus=arguments.cpus,
        max_startups=arguments.max_startups,
        noisy=arguments.noisy,
        slurm=arguments.slurm,
        share=tuple(os.path.abspath(path) for path in arguments.share),
    )
    hosts = VirtualHosts.up(arguments.dir, options)
    _status(hosts, as_json=False)
    print(f"ssh -F {hosts.ssh_config} {hosts.names[0]}", file=sys.stderr)
    print(f"inventory: {hosts.inventory}", file=sys.stderr)


def _status(hosts: VirtualHosts, *, as_json: bool) -> int:
    found = hosts.status() if (hosts.directory / "hosts.json").exists() else []
    if as_json:
        print(json.dumps({"directory": str(hosts.directory), "hosts": [asdict(h) for h in found]}))
    elif not found:
        print(f"no hosts at {hosts.directory}", file=sys.stderr)
    else:
        for host in found:
            state = "up" if host.running else "dead"
            faults = "; ".join(host.faults)
            print(f"{host.name:<12} {host.address:<15} {state:<5} {host.pid:<8} {faults}".rstrip())
    return 0 if found and all(host.running for host in found) else _EXIT_NOT_UP


def _inject(hosts: VirtualHosts, arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case "cut-data" if arguments.first == "all" and arguments.second is None:
            hosts.cut_all_data()
        case "cut-data" if arguments.second is not None:
            hosts.cut_data(arguments.first, arguments.second)
        case "slow-link":
            hosts.slow_link(
                arguments.host,
                rate=arguments.rate,
                delay_ms=arguments.delay,
                loss=arguments.loss,
            )
        case "slow-node":
            hosts.slow_node(arguments.host, arguments.factor, method=arguments.method)
        case "cut-ssh":
            hosts.cut_ssh(arguments.host)
        case "unplug":
            hosts.unplug(arguments.host)
        case "plug":
            hosts.plug(arguments.host)
        case "fill-disk":
            hosts.fill_disk(arguments.host)
        case "reboot":
            hosts.reboot(arguments.host)
        case "heal":
            hosts.heal(None if arguments.host == "all" else arguments.host)
        case _:
            raise VirtualHostsError("cut-data needs two hosts, or: cut-data all")


def _milliseconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: expected a time such as 100ms or 1s")
    return float(match[1]) * (1000 if match[2] == "s" else 1)


def _fraction(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: expected a percentage such as 1%")
    return float(match[1]) / 100


def _terminate(number: int, _: FrameType | None) -> None:
    """Unwind like Ctrl-C does, so that a half-made set is removed."""
    raise SystemExit(128 + number)
