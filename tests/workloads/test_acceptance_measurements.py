"""The acceptance workload's pure parts: counting, statistics, gates, verdicts, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptance.base import bandwidth, ranks, robust_stats
from acceptance.judge import limits, measurements, outliers, scaling, sweeps
from acceptance.judge.judging import judge_evidence
from acceptance.judge.limits import Bounds, Limits, Place, Reference
from acceptance.measure import gpu_health, shapes, transfers
from tests.workloads.acceptance_evidence import evidence
from tests.workloads.conftest import ACCEPTANCE

pytestmark = pytest.mark.slow

POSITIVE = st.floats(min_value=1e-6, max_value=1e12)
LIMITS = Limits.load()
H200 = "NVIDIA H200"


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=60))
def test_the_median_has_half_of_the_values_on_either_side(values: list[float]) -> None:
    middle = robust_stats.median(values)
    assert sum(value <= middle for value in values) * 2 >= len(values)
    assert sum(value >= middle for value in values) * 2 >= len(values)
    assert min(values) <= middle <= max(values)


@given(st.lists(POSITIVE, min_size=1, max_size=60), st.floats(min_value=0, max_value=100))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = robust_stats.percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100


@given(st.lists(st.floats(99.5, 100.5), min_size=3, max_size=16), st.integers(0, 15))
def test_one_slow_gpu_is_named_and_no_other(values: list[float], which: int) -> None:
    """Whatever the noise of the rest, far below it is out of line; within it nobody is."""
    names = {f"gpu{index}": value for index, value in enumerate(values)}
    assert robust_stats.outliers(names, floor=0.03) == {}
    slow = f"gpu{which % len(values)}"
    assert set(robust_stats.outliers(names | {slow: 80.0}, floor=0.03)) <= {slow}
    if len(values) > 4:
        assert slow in robust_stats.outliers(names | {slow: 80.0}, floor=0.03)


@pytest.mark.parametrize(
    "collective, ranks, factor",
    [("all-reduce", 8, 1.75), ("all-gather", 8, 0.875), ("all-to-all", 2, 0.5)],
)
def test_bus_bandwidth_is_nccl_tests(collective: str, ranks: int, factor: float) -> None:
    """8 GB in a second, times the factor of the documentation."""
    assert bandwidth.bus_bandwidth(collective, ranks, 8 * 10**9, 1.0) == pytest.approx(8 * factor)


def test_bytes_and_operations_are_all_that_move() -> None:
    """Copy and scale read one array and write one; add and triad read two."""
    rates = [bandwidth.stream_gigabytes(kernel, 10**9, 1.0) for kernel in bandwidth.STREAM_ARRAYS]
    assert rates == [2, 2, 3, 3]
    assert bandwidth.product_tflops((1000, 1000, 1000), 1e-3) == pytest.approx(2.0)


@given(st.integers(8, 10**6), st.integers(0, 10**9), st.integers(2, 16))
def test_sweeps_grow_and_end_at_the_largest(low: int, more: int, factor: int) -> None:
    sizes = list(bandwidth.sweep_sizes(low, low + more, factor))
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == low + more
    assert len(sizes) < 40


@given(st.integers(0, 2**35), st.integers(1, 4096), st.sampled_from([1, 2, 4]))
def test_messages_divide_into_whole_shares(size: int, count: int, item: int) -> None:
    found = bandwidth.rounded(size, count, item)
    assert found % (count * item) == 0
    assert 0 < found <= max(size, count * item)


@given(st.integers(1, 60), st.integers(1, 5))
def test_the_search_is_bounded_and_finds_a_hill_top(trials: int, peak: int) -> None:
    """Every trial is another shape; with enough of them the best one is the top."""
    top = 1024 * (peak + 2)
    tried: list[shapes.Shape] = []

    def rate(shape: shapes.Shape) -> float:
        tried.append(shape)
        return -sum(abs(edge - top) for edge in shape)

    seeds = [(1024, 1024, 1024), (1024, 1024, 1024), (4096, 4096, 4096)]
    found = shapes.search(seeds, rate, step=1024, trials=trials, go_on=lambda: True)
    assert len(tried) == len(set(tried)) == len(found) <= trials
    everything = shapes.search(seeds, rate, step=1024, trials=2000, go_on=lambda: True)
    assert shapes.best(everything, 1) == [(top, top, top)]
    stopped = shapes.search(seeds, rate, step=1024, trials=9, go_on=lambda: False)
    assert len(stopped) == 1


def bounds(limit: float | None = None, gate: float | None = None) -> Bounds:
    return Bounds(
        limit=None if limit is None else Reference(limit, "datasheet"),
        gate=None if gate is None else Reference(gate, "operator"),
        why_no_gate="not gated: nobody knows",
    )


@pytest.mark.parametrize(
    "values, known, verdict",
    [
        ([400.0, 390.0], bounds(450, 335), measurements.PASS),
        ([400.0, 351.0], bounds(450, 335), measurements.WARN),
        ([400.0, 334.9], bounds(450, 335), measurements.FAIL),
        ([451.0, 100.0], bounds(450, 335), measurements.INVALID),
        ([math.nan, 400.0], bounds(450, 335), measurements.INVALID),
        ([0.0], bounds(450, 335), measurements.INVALID),
        ([400.0], bounds(450), measurements.NOT_GATED),
        ([], bounds(450, 335), measurements.NOT_RUN),
    ],
)
def test_verdicts(values: list[float], known: Bounds, verdict: str) -> None:
    """The worst meets the gate, the best stays under the limit; nothing else passes."""
    assert measurements.judge(values, known)[0] == verdict


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8))
def test_only_measured_values_above_the_gate_pass(values: list[float]) -> None:
    verdict, reason = measurements.judge(values, bounds(450, 335))
    good = bool(values) and all(335 <= value <= 450 for value in values)
    assert (verdict in {measurements.PASS, measurements.WARN}) == good
    assert verdict == measurements.PASS or reason


def test_gates_depend_on_gpu_ranks_size_and_nvls() -> None:
    """8 H200 have 431 with NVLS and less without; 4 have 330; below 1 GiB there is none."""

    def gate(**where: object) -> float | None:
        place = Place(gpu=H200, **{"size": 2**32, **where})  # type: ignore[arg-type]
        found = LIMITS.bounds("all-reduce", place).gate
        return found.value if found else None

    assert gate(ranks=8, switch_reduces=True) == 431
    assert gate(ranks=8) == 335
    assert gate(ranks=4) == 330
    assert gate(ranks=4, size=2**20) is None
    assert gate(ranks=2) is None
    assert gate(ranks=16, nodes=2, nic_gb_s=400.0) == 250
    assert gate(ranks=16, nodes=2) is None
    assert LIMITS.nvls(H200, 8, {})
    assert not LIMITS.nvls(H200, 8, {"NCCL_NVLS_ENABLE": "0"})
    assert not LIMITS.nvls(H200, 4, {})


def test_limits_of_collectives_follow_from_the_links() -> None:
    """NVLink alone, more with in-switch reduction, or the node's share of the network."""

    def limit(**where: object) -> float | None:
        place = Place(gpu=H200, size=2**32, **where)  # type: ignore[arg-type]
        found = LIMITS.bounds("all-reduce", place).limit
        return found.value if found else None

    assert limit(ranks=8) == 450
    assert limit(ranks=8, switch_reduces=True) == pytest.approx(787.5)
    assert limit(ranks=16, nodes=2, nic_gb_s=400.0) == 450
    assert limit(ranks=32, nodes=4, nic_gb_s=200.0) == pytest.approx(25 * 31 / 3)
    assert limit(ranks=4, nodes=2) is None


@pytest.mark.parametrize(
    "driver, name",
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM"),
        ("NVIDIA A30", "A30"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA RTX A6000", "A6000"),
        ("Radeon", None),
    ],
)
def test_gpus_are_known_by_their_drivers_names(driver: str, name: str | None) -> None:
    assert LIMITS.gpu(driver).get("name") == name


def test_every_number_of_the_tables_has_a_source_and_gates_are_below_limits() -> None:
    """A best or a gate without a source, or above what is possible, would be no evidence."""
    data = Limits.load()
    for gpu in data._gpus:
        assert gpu["source"]
    for entry in data._references:
        for kind in ("best", "gate"):
            assert (kind in entry) == (f"{kind}_source" in entry)
        if "gate" in entry and "best" in entry:
            assert entry["gate"] <= entry["best"]


def test_merging_takes_the_mean_over_ranks() -> None:
    """As nccl-tests does; the slowest rank is shown beside it, wrong elements add up."""
    record = {
        "collective": "all-reduce", "placement": "in-place", "scope": "node", "members": [0, 1],
        "nodes": 1, "size": 10**9, "warmup": 5, "iterations": 20, "p50": 1.0, "p99": 2.0,
        "wrong": 1, "checked": 10,
    }  # fmt: skip
    (merged,) = sweeps.merged_sweeps([[{**record, "seconds": 1.0}], [{**record, "seconds": 3.0}]])
    assert merged["busbw"] == pytest.approx(0.5)
    assert merged["busbw_slowest_rank"] == pytest.approx(1 / 3)
    assert (merged["wrong"], merged["checked"]) == (2, 20)


def test_groups_of_ranks() -> None:
    """One node: itself. Two: each, all, and rails where they are equal."""
    assert ranks.memberships([(0, "a"), (0, "a")]) == {"node": [(0, 1)]}
    two = ranks.memberships([(0, "a"), (0, "a"), (1, "b"), (1, "b")])
    assert two == {"node": [(0, 1), (2, 3)], "all": [(0, 1, 2, 3)], "rails": [(0, 2), (1, 3)]}
    assert ranks.memberships([(0, "a"), (1, "b")]) == {"all": [(0, 1)]}
    assert "rails" not in ranks.memberships([(0, "a"), (0, "a"), (1, "b")])


def test_a_second_node_that_costs_speed_is_said_loudly() -> None:
    """The owners' own case: 331,842 tok/s on 8 GPUs, 136,970 on 16."""
    nodes = ["n0"] * 8 + ["n1"] * 8
    parts = [
        [
            {"scope": "gpu", "members": [rank], "tokens_per_s": 42_000.0},
            {"scope": "node", "members": list(range(8 * (rank // 8), 8 * (rank // 8) + 8)),
             "tokens_per_s": 331_842 / 8},
            {"scope": "all", "members": list(range(16)), "tokens_per_s": 136_970 / 16},
        ]
        for rank in range(16)
    ]  # fmt: skip
    found = scaling.rungs(parts, nodes)
    assert [rung.name for rung in found] == ["1 GPU", "n0", "n1", "2 nodes"]
    assert scaling.speed_up(found) == pytest.approx(136_970 / 331_842)
    assert "2 NODES ARE SLOWER IN TOTAL THAN ONE" in scaling.loud(found)
    assert "331,842" in scaling.loud(found)
    assert scaling.loud(found[:-1]) == ""
    assert found[1].efficiency == pytest.approx(331_842 / 8 / 42_000)


def test_healthy_gpus_pass_and_the_planted_faults_are_found() -> None:
    """Every planted fault changes its own figure's verdict, and no other one's."""
    healthy = {one.id: one for one in judge_evidence(evidence(1, 4))}
    assert {one.verdict for one in healthy.values()} <= {
        measurements.PASS,
        measurements.NOT_GATED,
    }
    assert measurements.overall_verdict(list(healthy.values()), gpu=True)[0] == measurements.PASS

    faults: dict[str, tuple[Callable[[dict[str, object]], None], str]] = {
        "matmul-bf16": (_set(("matmul_bf16", "best", "median"), 600.0), measurements.FAIL),
        "hbm-triad": (_set(("memory", "kernels", "triad", "torch", "best"), 9000.0), "invalid"),
        "host-to-device": (_set(("copies", "host-to-device"), 20.0), measurements.FAIL),
        "wrong-bits": (_set(("sustained", "different_cells"), 1), measurements.FAIL),
        "gpus-agree": (_set(("sustained", "digest"), 99), measurements.WARN),
        "gpu-ecc": (_set(("health", "after", "ecc_uncorrected"), 2), measurements.FAIL),
        "gpu-remaps": (_set(("health", "after", "remap_failed"), 1), measurements.FAIL),
        "gpu-throttling": (_set(("health", "after", "throttle"), 0x40), measurements.FAIL),
    }
    for id, (plant, verdict) in faults.items():
        broken = evidence(1, 4)
        plant(broken.parts[1])  # type: ignore[arg-type]
        changed = {
            f.id: f.verdict for f in judge_evidence(broken) if f.verdict != healthy[f.id].verdict
        }
        assert changed == {id: verdict}


def _set(path: tuple[str, ...], value: object) -> Callable[[dict[str, object]], None]:
    def plant(part: dict[str, object]) -> None:
        target: object = part
        for name in path[:-1]:
            assert isinstance(target, dict)
            target = target[name]
        assert isinstance(target, dict)
        target[path[-1]] = value

    return plant


def test_what_should_have_been_measured_and_was_not_never_passes() -> None:
    """An error is missing and fails the whole; what the machine cannot do is only not run."""
    broken = evidence(1, 4)
    broken.parts[2]["memory"] = {"not_run": "RuntimeError: out of memory", "expected": True}  # type: ignore[index]
    found = {one.id: one for one in judge_evidence(broken)}
    assert found["hbm-triad"].verdict == measurements.NOT_RUN
    assert found["hbm-triad"].missing
    assert "n1 GPU 2: RuntimeError" in found["hbm-triad"].reason
    assert measurements.overall_verdict(list(found.values()), gpu=True)[0] == measurements.FAIL

    old = evidence(1, 4)
    for part in old.parts:
        part["matmul_fp8"] = {"not_run": "no fp8", "expected": False}  # type: ignore[index]
    found = {one.id: one for one in judge_evidence(old)}
    assert not found["matmul-fp8"].missing
    assert measurements.overall_verdict(list(found.values()), gpu=True)[0] == measurements.PASS


def test_two_nodes_over_sockets_get_an_honest_verdict() -> None:
    """No gate where nobody published one, and a failure where more nodes are slower in total."""
    found = {one.id: one for one in judge_evidence(evidence(2, 2))}
    across = found["all-reduce-all"]
    assert across.verdict == measurements.NOT_GATED
    assert across.limit is None
    assert "no active InfiniBand" in across.reason
    assert found["nodes-speed-up"].verdict == measurements.FAIL
    assert found["scaling-all"].verdict == measurements.FAIL


def test_outliers_are_named() -> None:
    """The one slow GPU of eight, in what it is slow at."""
    broken = evidence(1, 8)
    broken.parts[5]["copies"]["host-to-device"] = 40.0
    (found,) = outliers.find_outliers(broken)
    assert (found.who, found.title) == ("n1 GPU 5", "host to device")
    assert found.deviation == pytest.approx(40 / 55 - 1, abs=0.01)


def test_nvidia_smi_is_read_as_it_writes() -> None:
    """Numbers, what the driver does not tell, throttle bits; lines of another shape are dropped."""
    keys = ["uuid", "power_w", "ecc_uncorrected", "throttle", "remap_pending"]
    text = "GPU-1, 73.51, 0, 0x0000000000000004, No\nGPU-2, [N/A], [N/A], Active, Yes\nbroken\n"
    found = gpu_health.parse_table(text, keys)
    assert found["GPU-1"] == {
        "uuid": "GPU-1", "power_w": 73.51, "ecc_uncorrected": 0.0, "throttle": 4,
        "remap_pending": 0,
    }  # fmt: skip
    assert found["GPU-2"]["power_w"] is None
    assert found["GPU-2"]["throttle"] is None
    assert found["GPU-2"]["remap_pending"] == 1
    assert len(found) == 2
    assert gpu_health.reasons(0x44) == ["power cap", "thermal (hardware)"]
    assert gpu_health.faults(0x44) == ["thermal (hardware)"]


@given(st.sets(st.integers(0, 300)))
def test_core_lists(cores: set[int]) -> None:
    assert transfers.parse_cores(",".join(map(str, sorted(cores)))) == cores


def test_core_ranges() -> None:
    assert transfers.parse_cores("0-3,8\n") == {0, 1, 2, 3, 8}


def test_limits_data_is_beside_the_code() -> None:
    """What is synced to a node holds the tables."""
    assert limits.DATA.is_relative_to(ACCEPTANCE)


@pytest.mark.parametrize(
    "late_ms,verdict", [(0.2, "pass"), (4.0, "warn"), (15.9, "warn"), (16.0, "fail")]
)
def test_the_latest_rank_decides_and_is_named(late_ms: float, verdict: str) -> None:
    found = evidence(1, 4)
    parts = [{**part, "together": {"hidden": 0.9, "late_ms": 0.1}} for part in found.parts]
    parts[2]["together"] = {"hidden": 0.0, "late_ms": late_ms}
    told = {one.id: one for one in judge_evidence(replace(found, parts=parts))}
    lateness = told["lateness"]
    assert (lateness.verdict, lateness.worst, lateness.high) == (verdict, "n1 GPU 2", late_ms)
    assert (told["overlap"].verdict, told["overlap"].worst) == ("not-gated", "n1 GPU 2")


def test_what_a_rank_alone_cannot_have_is_not_missing() -> None:
    found = evidence(1, 2)
    alone = [
        {**part, "together": {"not_run": "one rank", "expected": False}} for part in found.parts
    ]
    told = {one.id: one for one in judge_evidence(replace(found, parts=alone))}
    assert (told["lateness"].verdict, told["lateness"].missing) == ("not-run", False)
    assert told["launches"].value == 220.0
    lost = [
        {key: value for key, value in part.items() if key != "patterns"} for part in found.parts
    ]
    unread = {one.id: one for one in judge_evidence(replace(found, parts=lost))}
    assert told["wrong-patterns"].verdict == "pass"
    assert (unread["memory-patterns"].verdict, unread["memory-patterns"].missing) == (
        "not-run",
        True,
    )
