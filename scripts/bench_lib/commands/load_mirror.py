"""Figures of the load test's client and of others, of the same streams of a real server."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from urllib.parse import urlsplit

from bench_lib.base.command import (
    MET,
    MISSED,
    Command,
    print_report,
    reported,
    write_json,
)
from bench_lib.base.machine import describe
from bench_lib.load_mirror import MirrorRun, Server, measure_mirrored, mirror_markdown, mirror_met
from bench_lib.load_peers import add_load_arguments, add_peer_arguments, given_peers
from bench_lib.load_stamps import StampLoad


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The server, the load, and who sends it beside ours."""
    parser.add_argument("--server", required=True, metavar="URL", help="such as http://host:8000")
    parser.add_argument("--model", required=True, metavar="NAME", help="as the server calls it")
    parser.add_argument(
        "--tokenizer", required=True, metavar="FOLDER", help="the model's, for tools"
    )
    add_load_arguments(parser, rate=2.0)
    parser.add_argument("--tokens", type=int, default=16, metavar="N", help="default: 16")
    parser.add_argument(
        "--let-end", action="store_true", help="ask for no ignore_eos, which some servers refuse"
    )
    add_peer_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Each client in turn; each round another one leads."""
    facts = describe(sys.executable, None)
    peers = given_peers(arguments, "vllm", "aiperf")
    load = StampLoad(
        rate=arguments.rate,
        requests=arguments.requests,
        model=arguments.model,
        tokenizer=arguments.tokenizer,
        tokens=arguments.tokens,
        ignore_eos=not arguments.let_end,
    )
    url = urlsplit(arguments.server)
    server = Server(host=url.hostname or "127.0.0.1", port=url.port or 80)
    runs: list[MirrorRun] = []

    def report() -> None:
        write_json(arguments.json, facts, runs=[asdict(each) for each in runs])
        print_report(facts, mirror_markdown(runs))

    with reported(runs, report):
        runs.extend(measure_mirrored(server, load, arguments.repeats, peers))
    return MET if mirror_met(runs) else MISSED


COMMAND = Command(
    name="load-mirror",
    help="figures of the load test's client and of others, of the same streams of a real server",
    epilog="Needs Linux, taskset and two processors; --aiperf and --vllm name environments.",
    add_arguments=add_arguments,
    run=run,
)
