"""The acceptance workload beside an independent reference, on the same GPUs in the same call."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REFERENCE_S = 120.0
# What the project promised to show; None = no bound.
TARGETS = {
    "all_reduce": (0.98, 1.02),
    "matmul_bf16": (0.99, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """GPUs that one torchrun gets, and the name by which NCCL tells it from others."""

    gpus: str
    hostid: str


def hosts_of(inventory: Path) -> list[Host]:
    """The nodes of an inventory that scripts/imitated_hosts wrote."""
    data = YAML(typ="safe").load(inventory.read_text())
    return [
        Host(
            gpus=",".join(map(str, node.get("gpus", {}).get("indices", []))),
            hostid=node["env"]["NCCL_HOSTID"],
        )
        for node in data["nodes"]
    ]


def write_whole(inventory: Path, target: Path, price_per_hour: float | None = None) -> None:
    """The first node with the GPUs of all of them, as one host; its price in $, if it has one."""
    data = YAML(typ="safe").load(inventory.read_text())
    nodes = data["nodes"]
    indices = [index for node in nodes for index in node.get("gpus", {}).get("indices", [])]
    whole = {**nodes[0], **({"gpus": {"indices": indices}} if indices else {})}
    priced = {} if price_per_hour is None else {"currency": "USD"}
    whole |= {} if price_per_hour is None else {"price_per_hour": price_per_hour}
    with target.open("w") as stream:
        YAML().dump({**data, **priced, "name": "whole", "nodes": [whole]}, stream)


def reference(hosts: Sequence[Host], per_host: int, script: Path) -> dict[str, Any]:
    """Plain torch.distributed over these hosts. Raises ``RuntimeError`` with its last words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [_start(hosts, index, per_host, port, script) for index in range(len(hosts))]
    outputs = ["" for _ in running]

    def read(index: int) -> None:
        outputs[index], _ = running[index].communicate()

    readers = [threading.Thread(target=read, args=(index,)) for index in range(len(running))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(REFERENCE_S)
    for process in running:
        process.kill()
    for line in "\n".join(outputs).splitlines():
        if line.startswith("REFERENCE "):
            found = json.loads(line.removeprefix("REFERENCE "))
            assert isinstance(found, dict)
            return found
    raise RuntimeError("the reference gave nothing:\n" + "\n".join(outputs)[-2000:])


def _start(
    hosts: Sequence[Host], index: int, per_host: int, port: int, script: Path
) -> subprocess.Popen[str]:
    host = hosts[index]
    variables = {"OMP_NUM_THREADS": "1"}
    if host.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = host.gpus
    if len(hosts) > 1:
        interface = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
        variables |= {"NCCL_HOSTID": host.hostid, **interface}
    argv = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(hosts)}",
        f"--node-rank={index}",
        f"--nproc-per-node={per_host}",
        "--master-addr=127.0.0.1",
        f"--master-port={port}",
        str(script),
    ]
    return subprocess.Popen(
        argv,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def compared(result: Mapping[str, Any], beside: Mapping[str, Any], scope: str) -> Iterator[str]:
    """Lines: ours, the reference, their ratio, and whether that was the target."""
    for sweep in result["sweeps"]:
        theirs = beside["all_reduce"].get(str(sweep["size"]))
        mine = (sweep["collective"], sweep["scope"]) == ("all-reduce", scope)
        if theirs and mine and sweep["ranks"] == beside["ranks"]:
            name = f"all-reduce busbw {sweep['size']} B, GB/s"
            yield _line(name, sweep["busbw"], theirs, TARGETS["all_reduce"])
    figure = next(one for one in result["figures"] if one["id"] == "matmul-bf16")
    shape = "x".join(map(str, beside["matmul"]["shape"]))
    name = f"bf16 product, TFLOPS (reference {shape}; ours {figure['reason']})"
    yield _line(name, figure["value"], beside["matmul"]["median"], TARGETS["matmul_bf16"])


def _line(name: str, ours: float, theirs: float, target: tuple[float, float | None]) -> str:
    low, high = target
    ratio = ours / theirs
    met = ratio >= low and (high is None or ratio <= high)
    return (
        f"   {name}: {ours:.4g}, reference {theirs:.4g}, ratio {ratio:.4f} "
        f"{'met' if met else 'MISSED'} (target {low}..{high or ''})"
    )


def figure_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Every figure on one line."""
    yield f"   verdict: {result['verdict']}: {result['summary']} {result['loud']}"
    for figure in result["figures"]:
        value = "-" if figure["value"] is None else f"{figure['value']:.5g} {figure['unit']}"
        gate = "" if figure["gate"] is None else f" gate {figure['gate']:g}"
        low, high = figure["low"], figure["high"]
        between = "" if low is None or low == high else f" ({low:.5g}..{high:.5g})"
        reason = f": {figure['reason']}" if figure["reason"] else ""
        yield f"   {figure['id']}: {value}{between}{gate} {figure['verdict']}{reason}"


def found_in(run: Path) -> dict[str, Any]:
    """The acceptance.json that the run brought home."""
    (path,) = run.glob("artifacts/*/acceptance.json")
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def pack(runs: Sequence[Path], more: Mapping[str, Any], target: Path) -> None:
    """Reports, results and artifacts of the runs in one file, with what was measured beside."""
    beside = target.with_suffix("").with_suffix(".reference.json")
    beside.write_text(json.dumps(more, indent=1))
    with tarfile.open(target, "w:gz") as archive:
        archive.add(beside, beside.name)
        for run in runs:
            for path in sorted(run.rglob("*")):
                if path.is_file() and re.search(r"report\.|result\.|artifacts/|logs/", str(path)):
                    archive.add(path, f"{run.name}/{path.relative_to(run)}")
    beside.unlink()
