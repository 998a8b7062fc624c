"""Readers of foreign text, each as a function of bytes that may only refuse.

``scripts/fuzz`` drives them for minutes with inputs that it makes; ``test_corpus`` replays the few
that are kept. A target returns for what it accepts and for what its reader refuses with an error of
its own; whatever else it raises is a fault. Where two readers must agree, it compares them.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from orchestrate_kit import _samples
from orchestrator.adapters.agent_client.frames import BadFrame, decode_frame
from orchestrator.adapters.catalog.foreign_files import read_foreign
from orchestrator.adapters.store.data_set import sample_set
from orchestrator.adapters.sync.ignore_file import RuleList, parse_rules
from orchestrator.adapters.transport.ssh.target import resolve_target
from orchestrator.core.base import manifest
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.base.nodeset import NodeSetError, expand_nodeset, fold_nodeset
from orchestrator.core.diagnosis.diagnosis_model import LogSource
from orchestrator.core.diagnosis.matching import match_rules
from orchestrator.core.model.inventory import SshEndpoint
from orchestrator.core.model.workload import Job, SampleSource, Workload
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.base.wire import WireError, read_frame
from orchestrator.node_agent.code import node_manifest
from orchestrator.node_agent.facts import gpu_query, module_versions, network, rdma, smi, xids
from orchestrator.node_agent.facts.host_facts import find_disks, memory_table, nccl_conf
from orchestrator.node_agent.facts.pci import acs_control
from orchestrator.node_agent.hang import flight_recorder
from orchestrator.node_agent.hang.inspect import parse_use
from orchestrator.parsing.experts.engine_dumps import parse_sglang_dump, parse_vllm_dump
from orchestrator.parsing.experts.engine_metrics import parse_engine_metrics
from orchestrator.parsing.experts.expert_shape import BadExpertFile
from orchestrator.parsing.experts.router_telemetry import parse_router_telemetry
from orchestrator.parsing.importers.hostfile import DEEPSPEED, MPICH, OPENMPI
from orchestrator.parsing.inputs.inventory_file import load_cluster
from orchestrator.parsing.inputs.workloads.workload_file import load_workload
from orchestrator.parsing.replies.inspection import parse_inspection
from orchestrator.parsing.replies.kit_records import parse_report
from orchestrator.parsing.replies.load.request_times import NoRequest, parse_request_times
from orchestrator.parsing.replies.output_listing import parse_listing
from orchestrator.parsing.replies.probe_reply import parse_facts
from orchestrator.parsing.replies.report_sections import parse_sections
from orchestrator.parsing.replies.round_records import parse_told
from orchestrator.parsing.replies.sample_records import merged_line, parse_sample_record
from orchestrator.parsing.replies.supervisor_records import BadRecord, parse_record
from orchestrator.parsing.replies.trial_records import parse_trial
from tests.fuzz.settings_targets import captures, kubectl, loadgen, settings_files

Target = Callable[[bytes], None]
SAMPLES = SampleSource(file="file", count="count", group="group")
MAX_PATH = 200
DIALECTS = (None, OPENMPI, MPICH, DEEPSPEED)
# Inputs that would run a program or read the machine's files say nothing about the reader.
_REACHES_OUT = re.compile(rb"exec|include|~|/|\$", re.IGNORECASE)


class Disagreement(AssertionError):
    """Two readers of the same text do not say the same."""


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _file(data: bytes, name: str = "input") -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def cluster(data: bytes) -> None:
    """Inventories."""
    with suppress(OrchestrateError):
        load_cluster(data, "c.yaml", folder="/f", environ={"HOME": "/h"})


def workload(data: bytes) -> None:
    """workload.yaml."""
    with suppress(OrchestrateError):
        load_workload(data, "w.yaml", "/f")


def foreign(format: str, data: bytes) -> None:
    """A file of another tool; what comes of it must be an inventory."""
    if format == "ssh-config" and _REACHES_OUT.search(data):
        return
    for dialect in DIALECTS if format == "hostfile" else (None,):
        with suppress(OrchestrateError):
            read_foreign(format, str(_file(data)), "c", dialect=dialect)


def ssh_config(data: bytes) -> None:
    """How a host is reached, by a configuration that neither runs nor includes anything."""
    if _REACHES_OUT.search(data):
        return
    path = str(_file(data, "config"))
    for host in ("gpu1", "10.0.0.1"):
        with suppress(OrchestrateError):
            resolve_target(SshEndpoint(host=host, ssh_config=path))


def samples(data: bytes) -> None:
    """A data set: what is accepted here must be read alike on the node."""
    path = str(_file(data, "samples.jsonl"))
    job = Workload(name="w", source="w", folder="/", samples=SAMPLES)
    try:
        found = sample_set(Job(workload=job, values={"file": path, "count": 0, "group": 1}))
    except OrchestrateError:
        return
    try:
        read = list(_samples._samples(0, path))
    except ValueError as error:
        raise Disagreement(str(error)) from error
    if found is None or found.total != len(read):
        raise Disagreement(f"{found} here, {len(read)} samples on the node")


def ranks_lines(data: bytes) -> None:
    """What ranks write: reports, samples, rounds."""
    for line in data.split(b"\n")[:20]:
        parse_report("n", 0, line, 0)
        parse_sample_record(line, 100, 10)
        parse_told(line)
        with suppress(ValueError):
            merged_line(line)


def frames(data: bytes) -> None:
    """Requests and answers of the agent."""
    with suppress(BadFrame):
        decode_frame(data)
    stream = io.BytesIO(data)
    with suppress(WireError):
        while read_frame(stream) is not None:
            pass


def answers(data: bytes) -> None:
    """What a node says of itself, of its ranks, and of its outputs."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        with suppress(OrchestrateError, KeyError):
            parse_facts("n", fields, asked=0.0, answered=1.0)
        with suppress(BadRecord):
            parse_record("n", fields, 0.0)
    for read in (partial(parse_listing, "n"), partial(parse_trial, deadline_s=1.0)):
        with suppress(OrchestrateError, BadRecord):
            read(data)
    with suppress(OrchestrateError, ValueError):
        parse_sections(data, where="r")
    with suppress(BadRecord):
        parse_inspection([{"name": "inspection.json", "bytes": len(data)}], data)


def drivers_texts(data: bytes) -> None:
    """What nvidia-smi and the kernel print, and what sysfs and netlink hold."""
    text = data.decode(errors="replace")
    for parse in (smi.parse_gpus, smi.parse_details, smi.parse_rows, smi.parse_links):
        parse(text)
    gpu_query.parse_users(text)
    parse_use(text, {"GPU-1": {1}})
    module_versions.parse_modules(text)
    acs_control(str(_file(data, "config")))
    smi.sysfs_address(text)
    xids.summarize_xids(data.split(b"\n"))
    _exhaust(network.parse_links(data), network.parse_addresses(data))
    nccl_conf([str(_file(data, "nccl.conf"))])


def _exhaust(*many: Iterable[object]) -> None:
    for one in many:
        for _ in one:
            pass


def sysfs(data: bytes) -> None:
    """Small files of /sys and /proc, all of them with the same odd content."""
    root = _folder() / "sys"
    for name in ("mlx5_0/ports/1/state", "mlx5_0/ports/1/rate", "mlx5_0/ports/1/link_layer",
                 "mlx5_0/ports/1/gids/0", "mlx5_0/board_id", "mlx5_0/fw_ver", "meminfo",
                 "mounts"):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    rdma.find_hcas(str(root))
    memory_table(str(root))
    find_disks(["/"], str(root))


def flight_records(data: bytes) -> None:
    """What torch leaves of its collectives: a pickle, read without running it."""
    with suppress(ValueError):
        record = flight_recorder.load_record(data)
        flight_recorder.as_json(record)
        flight_recorder.group_progress(record)


def ignore_rules(data: bytes) -> None:
    """Ignore files: rules, and paths behind a line of its own."""
    rules, _, names = data.partition(b"\n\n")
    with suppress(OrchestrateError):
        found = RuleList(parse_rules(rules, "r"))
        for name in names.split(b"\n")[:10]:
            for is_folder in (False, True):
                found.last_match(name[:MAX_PATH].decode(errors="replace"), is_folder=is_folder)


def manifests(data: bytes) -> None:
    """Lists of files: both sides of the wire accept the same."""
    with suppress(AgentFault):
        theirs = node_manifest.NodeManifest(data)
        with suppress(manifest.InvalidManifest):
            ours = manifest.Manifest.decode(data)
            paths = {entry.path for entry in ours.entries}
            if paths != theirs.files.keys() | theirs.links.keys():
                raise Disagreement("the two sides read other paths")
        return
    with suppress(manifest.InvalidManifest):
        manifest.Manifest.decode(data)
        raise Disagreement("accepted here, refused on the node")


def names(data: bytes) -> None:
    """Sets of nodes: what is folded unfolds to the same."""
    with suppress(NodeSetError):
        found = expand_nodeset(data.decode(errors="replace"), 10_000)
        if set(expand_nodeset(fold_nodeset(found))) != set(found):
            raise Disagreement(f"{found[:5]} folds to {fold_nodeset(found)[:80]}")


def expert_loads(data: bytes) -> None:
    """Dumps and metrics of inference engines, and what load tests leave."""
    for parse in (parse_sglang_dump, parse_vllm_dump):
        with suppress(BadExpertFile):
            parse(io.BytesIO(data))
    for read in (parse_engine_metrics, parse_router_telemetry):
        with suppress(BadExpertFile):
            read(data)
    for line in data.split(b"\n")[:100]:
        with suppress(NoRequest):
            parse_request_times(line)


def logs(data: bytes) -> None:
    """Lines of logs before the rules of ``diagnose``."""
    match_rules(data.decode(errors="replace"), LogSource(name="rank-0.err", node="n", rank=0))


TARGETS: Mapping[str, Target] = {
    "cluster": cluster,
    "workload": workload,
    "ansible": partial(foreign, "ansible"),
    "hostfile": partial(foreign, "hostfile"),
    "slurm": partial(foreign, "slurm"),
    "ssh-aliases": partial(foreign, "ssh-config"),
    "ssh-config": ssh_config,
    "samples": samples,
    "ranks-lines": ranks_lines,
    "frames": frames,
    "answers": answers,
    "drivers-texts": drivers_texts,
    "sysfs": sysfs,
    "flight-records": flight_records,
    "ignore-rules": ignore_rules,
    "manifests": manifests,
    "names": names,
    "logs": logs,
    "expert-loads": expert_loads,
    "settings-files": settings_files,
    "kubectl": kubectl,
    "captures": captures,
    "loadgen": loadgen,
}
