"""The run's energy is the sum of its nodes', and its cost follows from prices that are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model.prices import ApiPrice, ElectricityPrice, Prices
from orchestrator.core.run.events import Divided, Event
from orchestrator.core.run.kit_reports import EnergyReported, GpuEnergy
from orchestrator.core.run.machine import step
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.cost import Cost, cost_of
from orchestrator.core.verdict.energy import Energy, energy_of
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import World, request

PRICES = Prices(
    electricity=(
        ElectricityPrice(
            name="here", currency="EUR", per_kwh=0.36, pue=1.5, date="2026-01-01", source="bill"
        ),
    ),
    apis=(
        ApiPrice(
            name="theirs", currency="USD", per_million_input=1.0, per_million_output=2.0,
            date="2026-01-01", source="page",
        ),
    ),
)  # fmt: skip


def report(
    node: str, rank: int = 0, *joules: float | None, window: int = 0, final: bool = True,
    seconds: float = 10.0, problems: tuple[str, ...] = (), **work: float,
) -> EnergyReported:  # fmt: skip
    gpus = tuple(
        GpuEnergy(gpu=f"GPU-{i}", joules=j, integrated=j and 1.01 * j) for i, j in enumerate(joules)
    )
    return EnergyReported(
        node=node, rank=rank, window=window, seconds=seconds, asked=bool(joules or problems),
        final=final, gpus=gpus, peak_watts=700.0 if joules else None, problems=problems, work=work,
    )  # fmt: skip


def after(*events: Event, nodes: tuple[str, ...] = ("n1", "n2")) -> RunState:
    state = World(request(*nodes)).run()
    for event in events:
        state, _ = step(state, event)
    return state


def energy_after(*events: Event, nodes: tuple[str, ...] = ("n1", "n2")) -> Energy:
    energy = energy_of(after(*events, nodes=nodes))
    assert energy is not None
    return energy


def test_nodes_add_up_and_work_is_counted_by_any_rank() -> None:
    energy = energy_after(
        report("n1", 0, 4000.0, 4000.0, requests=4, input_tokens=300, output_tokens=100),
        report("n2", 2, 2000.0),
        report("n2", 3, requests=4, input_tokens=300, output_tokens=100),
    )
    assert energy.valid
    assert energy.reasons == ()
    assert (energy.joules, energy.seconds, energy.gpus) == (10_000.0, 10.0, 3)
    assert (energy.watts_mean, energy.watts_peak) == (1000.0, 1400.0)
    assert energy.tokens_per_joule == 0.08
    assert energy.joules_per == {
        "request": 1250.0, "input_token": pytest.approx(10_000 / 600), "output_token": 50.0,
        "token": 12.5,
    }  # fmt: skip
    assert energy.nodes["n1"].joules == 8000.0
    assert energy.nodes["n1"].integrated_joules == pytest.approx(8080.0)


def test_windows_of_a_rank_follow_each_other_and_ranks_stand_beside_each_other() -> None:
    energy = energy_after(
        report("n1", 0, 100.0),
        report("n1", 0, 300.0, window=1, seconds=5.0),
        report("n1", 1, 600.0, seconds=12.0),
        report("n2", 2, 50.0),
    )
    assert (energy.joules, energy.seconds, energy.gpus) == (1050.0, 15.0, 3)


def test_a_later_report_of_a_window_replaces_the_earlier() -> None:
    half = report("n1", 0, 100.0, final=False, seconds=5.0, tokens=5)
    whole = report("n1", 0, 220.0, tokens=11)
    energy = energy_after(half, whole, whole, report("n2", 1, 1.0))
    assert (energy.valid, energy.joules, energy.work) == (True, 221.0, {"tokens": 11.0})
    early = energy_after(half, report("n2", 1, 1.0))
    assert (early.valid, early.joules) == (False, 101.0), "partial, and marked so"
    assert early.reasons == ("n1: a measured window was not closed, so that its end is missing",)


def test_who_says_nothing_or_doubts_makes_it_invalid_and_never_zero() -> None:
    silent = energy_after(report("n1", 0, 100.0, tokens=10))
    assert silent.reasons == ("n2: reported no energy",)
    unknown = energy_after(report("n1", 0, 100.0), report("n2", 1, None, problems=("GPU is lost",)))
    assert (unknown.joules, unknown.watts_mean, unknown.joules_per) == (None, None, {})
    assert unknown.reasons == ("n2: GPU is lost",)
    cpus = energy_after(report("n1", problems=("no GPU",)), report("n2", 1, problems=("no GPU",)))
    assert (cpus.valid, cpus.joules, cpus.gpus) == (False, None, 0)
    assert energy_of(after()) is None


def test_samples_that_two_nodes_did_count_once() -> None:
    energy = energy_after(
        report("n1", 0, 100.0, requests=60, output_tokens=600),
        report("n2", 1, 100.0, requests=60, output_tokens=600),
        Divided(total=100, done=100, duplicates=20, final=True),
    )
    assert energy.work["requests"] == pytest.approx(100.0)
    assert energy.work["output_tokens"] == pytest.approx(1000.0)
    assert energy.joules_per["request"] == pytest.approx(2.0)


# ---- cost ---------------------------------------------------------------------------------------


def cost(
    hourly: tuple[float | None, ...], prices: Prices | None, energy: Energy | None, wall_s: float
) -> Cost | None:
    names = tuple(f"n{index + 1}" for index in range(len(hourly)))
    cluster = request(*names).cluster
    nodes = tuple(replace(n, price_per_hour=p) for n, p in zip(cluster.nodes, hourly, strict=True))
    return cost_of(replace(cluster, nodes=nodes), names, wall_s, energy, prices)


USED = Energy(
    valid=True, reasons=(), gpus=2, seconds=100.0, joules=36_000.0,
    work={"input_tokens": 4000.0, "output_tokens": 1000.0, "tokens": 5000.0},
)  # fmt: skip


def test_the_formulas() -> None:
    """Two nodes at 18 and 54 an hour are 0.02 a second; 36 kJ are 0.01 kWh."""
    found = cost((18.0, 54.0), PRICES, USED, 200.0)
    assert found is not None
    assert (found.per_hour, found.run) == (72.0, pytest.approx(4.0))
    assert found.per_million == {
        "input_tokens": pytest.approx(500.0), "output_tokens": pytest.approx(2000.0),
        "tokens": pytest.approx(400.0),
    }  # fmt: skip
    (electricity,) = found.electricity
    assert electricity.run == pytest.approx(0.01 * 1.5 * 0.36)
    assert electricity.per_million["output_tokens"] == pytest.approx(5.4)
    (even,) = found.break_even
    assert even.api == pytest.approx(0.006)
    assert even.ratio == pytest.approx(2.0 / 0.006)
    assert even.output_tokens_per_s == pytest.approx(10.0 * 2.0 / 0.006)


@given(st.floats(0.01, 1000), st.floats(1, 1e5), st.floats(1, 1e9), st.floats(1, 1e9))
def test_at_the_break_even_rate_both_cost_the_same(
    hourly: float, seconds: float, read: float, written: float
) -> None:
    work = {"input_tokens": read, "output_tokens": written, "tokens": read + written}
    found = cost((hourly,), PRICES, replace(USED, seconds=seconds, work=work), seconds)
    assert found is not None
    (even,) = found.break_even
    faster = even.output_tokens_per_s * seconds / written
    again = {name: count * faster for name, count in work.items()}
    other = cost((hourly,), PRICES, replace(USED, seconds=seconds, work=again), seconds)
    assert other is not None
    assert other.break_even[0].ratio == pytest.approx(1.0)


def test_what_is_not_known_is_not_shown() -> None:
    assert cost((None, None), Prices(), USED, 10.0) is None
    assert cost((None,), PRICES, None, 10.0) is None
    one = cost((5.0, None), PRICES, USED, 10.0)
    assert one is not None
    assert (one.per_hour, one.run, one.per_million, one.break_even) == (None, None, {}, ())
    assert len(one.electricity) == 1
    doubtful = cost((5.0,), PRICES, replace(USED, valid=False), 3600.0)
    assert doubtful is not None
    assert (doubtful.run, doubtful.electricity) == (5.0, ())
    without = cost((5.0,), None, None, 3600.0)
    assert without == Cost(currency="USD", per_hour=5.0, run=5.0)


def test_other_currencies_are_not_compared() -> None:
    apis = tuple(replace(api, currency="EUR") for api in PRICES.apis)
    found = cost((5.0,), replace(PRICES, apis=apis), USED, 10.0)
    assert found is not None
    assert found.break_even == ()


def test_a_result_has_both() -> None:
    asked = request("n1")
    (node,) = asked.cluster.nodes
    priced = replace(asked.cluster, nodes=(replace(node, price_per_hour=36.0),))
    state = World(replace(asked, cluster=priced, prices=PRICES)).run()
    state, _ = step(state, report("n1", 0, 3600.0, tokens=100))
    result = conclude_run(state, timings={"watch": 90.0, "load": 10.0}, report="")
    assert result.energy is not None
    assert result.energy.joules_per == {"token": 36.0}
    assert result.cost is not None
    assert result.cost.run == pytest.approx(1.0)
