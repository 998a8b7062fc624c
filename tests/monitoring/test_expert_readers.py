"""Dumps and metrics of inference engines: real files, the right axis, and hostile ones."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.monitoring.expert_sources import read_expert_file
from orchestrator.core.base.errors import UsageError
from orchestrator.core.monitoring.expert_load import ExpertTable, table_loads
from orchestrator.parsing.experts.engine_dumps import parse_sglang_dump, parse_vllm_dump
from orchestrator.parsing.experts.engine_metrics import MAX_LINE, parse_engine_metrics
from orchestrator.parsing.experts.expert_shape import BadExpertFile
from orchestrator.parsing.experts.router_telemetry import parse_router_telemetry

STEPS, LAYERS, EXPERTS = 3, 2, 4
# Layer 0 is even over its experts, layer 1 sends everything to expert 3: along another axis, of
# layers or of steps, both would look different.
ROUTED = np.array([[[2, 2, 2, 2], [0, 0, 0, 8]]] * STEPS, dtype=np.int32)


def check_axis(table: ExpertTable) -> None:
    """The crafted routing, as it was meant."""
    even, skewed = table_loads(table)
    assert (even.layer, even.experts, even.gini, even.dead) == ("0", EXPERTS, 0, 0)
    assert (skewed.layer, skewed.gini, skewed.dead) == ("1", 0.75, 0.75)
    assert (even.tokens, skewed.tokens) == (8 * STEPS, 8 * STEPS)


def saved_by_torch(content: object) -> io.BytesIO:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.slow
def test_a_dump_of_sglang_is_read_along_its_axis() -> None:
    """The keys are those of its recorder in mode ``stat``; the file is of the real torch.save."""
    torch = pytest.importorskip("torch")
    counts = torch.from_numpy(ROUTED)
    plain = {"rank": 0, "logical_count": counts, "average_utilization_rate_over_window": None}
    table = parse_sglang_dump(saved_by_torch(plain))

    check_axis(table)
    assert len(table.windows) == STEPS
    moved = torch.from_numpy(np.ascontiguousarray(ROUTED.transpose(2, 1, 0))).permute(2, 1, 0)
    assert not moved.is_contiguous()
    check_axis(parse_sglang_dump(saved_by_torch({"logical_count": moved})))
    with pytest.raises(BadExpertFile, match="--expert-distribution-recorder-mode stat"):
        parse_sglang_dump(saved_by_torch({"records": [], "last_physical_to_logical_map": counts}))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [True, False])
def test_a_dump_of_vllm_is_read_along_its_axis(steps: bool) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    counts = ROUTED if steps else ROUTED.sum(axis=0)
    content = safetensors.save({"global_expert_load_window": counts})

    check_axis(parse_vllm_dump(io.BytesIO(content)))


def test_what_the_workload_writes_is_read() -> None:
    workload = pytest.importorskip("workloads.moe.report")
    windows = [
        (float(n), [list(map(int, layer)) for layer in step]) for n, step in enumerate(ROUTED)
    ]
    latencies = [[1e-5] * len(layer) for layer in windows[0][1]]
    latencies[1][0] = None
    document = workload.telemetry_document(
        ["0", "1"], windows, top_k=1, tokens=8, cost={"mean": 0.0}, latencies=latencies
    )

    table = parse_router_telemetry(json.dumps(document).encode())

    check_axis(table)
    assert [list(layer) for layer in table.latencies] == latencies


def test_metrics_by_layer_and_expert_add_up_over_other_labels() -> None:
    registry = CollectorRegistry()
    counter = Counter(
        "vllm:moe_expert_selection", "by expert", ["layer", "expert", "model"], registry=registry
    )
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            for model in "ab":
                half = ROUTED.sum(axis=0)[layer, expert] / 2
                counter.labels(str(layer), str(expert), model).inc(half)

    check_axis(parse_engine_metrics(generate_latest(registry)))


def test_sglangs_histogram_over_ranks_is_a_count_by_gpu() -> None:
    """Its buckets are GPU ranks, each with the tokens of that rank alone until it is exposed."""
    registry = CollectorRegistry()
    histogram = Histogram(
        "sglang:eplb_gpu_physical_count",
        "by GPU",
        ["layer"],
        buckets=[float(rank) for rank in range(EXPERTS)],
        registry=registry,
    )
    for layer in range(LAYERS):
        for gpu, count in enumerate(ROUTED.sum(axis=0)[layer]):
            for _ in range(count):
                histogram.labels(str(layer)).observe(gpu)
    table = parse_engine_metrics(generate_latest(registry))

    check_axis(table)
    assert table.of == "GPUs"


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return print, ("the file ran code",)


def archive(pickled: bytes, **members: bytes) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a/data.pkl", pickled)
        for name, content in members.items():
            made.writestr(f"a/data/{name.strip('_')}", content)
    file.seek(0)
    return file


def test_a_pickle_that_would_run_code_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadExpertFile, match=r"builtins\.print, which is not read"):
        parse_sglang_dump(archive(pickle.dumps({"logical_count": Harmful()})))

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "operations",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # LONG_BINPUT: remembers object 2,147,483,647
        b"\x80\x05\x96" + (1 << 34).to_bytes(8, "little") + b".",  # BYTEARRAY8 of 16 GiB
        b"\x80\x02\x8a\xff" + bytes(10) + b".",  # a number that the file ends in
    ],
)
def test_a_pickle_cannot_make_the_reader_allocate(operations: bytes) -> None:
    with pytest.raises(BadExpertFile):
        parse_sglang_dump(archive(operations))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 torn",
        b"\xff" * 64,
        b'\x08\x00\x00\x00\x00\x00\x00\x00{"a": 1}',
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
    ],
)
def test_damaged_dumps_are_refused(content: bytes) -> None:
    for parse in (parse_sglang_dump, parse_vllm_dump):
        with pytest.raises(BadExpertFile):
            parse(io.BytesIO(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_whose_compressed_content_is_damaged_is_refused(method: int) -> None:
    """torch.save compresses nothing, but zip readers decompress, each with errors of its own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr("a/data.pkl", pickle.dumps({"logical_count": list(range(500))}))
    whole = file.getvalue()
    begin = whole.index(b"data.pkl") + len(b"data.pkl")

    for place in range(begin, begin + 60):
        damaged = whole[:place] + b"\xff\xff" + whole[place + 2 :]
        with pytest.raises(BadExpertFile):
            parse_sglang_dump(io.BytesIO(damaged))


def tensor(shape: list[int], offsets: list[int], kind: str = "I32") -> bytes:
    entry = {"dtype": kind, "shape": shape, "data_offsets": offsets}
    header = json.dumps({"global_expert_load_window": entry}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "header, why",
    [
        (tensor([2, 4], [0, 32]), "ends within"),
        (tensor([2, 4], [0, 16]), "size and shape differ"),
        (tensor([1 << 40, 4], [0, 1 << 44]), "size and shape differ"),
        (tensor([-2, -4], [0, 32]), "size and shape differ"),
        (tensor([2, 4], [0, 32], "BF8"), "not read"),
        (tensor([0, 4], [0, 0]), "expected steps x layers x experts"),
    ],
)
def test_headers_that_lie_are_refused(header: bytes, why: str) -> None:
    with pytest.raises(BadExpertFile, match=why):
        parse_vllm_dump(io.BytesIO(header))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'up{job="x"} 1\n',
        b"not metrics {{{{",
        b"x" * (MAX_LINE + 1),
        b'a_total{layer="0",expert="-1"} 1\na_total{layer="0",expert="99999"} 1\n',
        b'sglang:eplb_gpu_physical_count_bucket{layer="0",le="1e99"} 1\n',
        b'sglang:eplb_gpu_physical_count_bucket{layer="0",le="0.5"} 1\n',
        b'a_total{layer="0",expert="1"} -5\n',
        b'a_total{layer="0",expert="1"} NaN\n',
    ],
)
def test_answers_that_say_nothing_of_experts_are_refused(content: bytes) -> None:
    with pytest.raises(BadExpertFile):
        parse_engine_metrics(content)


@pytest.mark.parametrize(
    "layers",
    [
        None,
        [],
        [1],
        [{"name": "a"}],
        [{"name": "a", "counts": []}],
        [{"name": "a", "counts": [1, True]}],
        [{"name": "a", "counts": [1, -1]}],
        [{"name": "a", "counts": "12"}],
        [{"name": "a", "counts": [1]}, {"name": "a", "counts": [1]}],
        [{"name": "a", "counts": [1], "latency_s": [0.1, 0.2]}],
        [{"name": "a", "counts": [1], "latency_s": [-0.1]}],
        [{"name": "a", "counts": [1], "latency_s": 1}],
        [{"name": "a", "counts": [1], "latency_s": [0.1]}, {"name": "b", "counts": [1]}],
    ],
)
def test_bad_router_telemetry_is_refused(layers: object) -> None:
    with pytest.raises(BadExpertFile):
        parse_router_telemetry(json.dumps({"schema_version": 1, "layers": layers}).encode())


def test_metrics_that_nothing_here_reads_name_what_installs_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.txt").write_text('a_total{layer="0",expert="1"} 1\n')
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)

    with pytest.raises(UsageError, match="needs prometheus-client") as refused:
        read_expert_file(tmp_path / "metrics.txt")
    assert refused.value.remedy == install_command("serve")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "dump.pt"
    bad.write_bytes(b"nothing")

    with pytest.raises(UsageError, match=r"dump\.pt"):
        read_expert_file(bad)
    with pytest.raises(UsageError, match="cannot be read"):
        read_expert_file(tmp_path / "missing.pt")
