"""The cross-check: what another tool says about the same server, beside our own figures."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.base.job import Target
from loadtest.base.records import RequestRecord
from loadtest.judge.definitions import DEFINITIONS
from loadtest.judge.summary import Objectives, Summary
from loadtest.load.trivial_servers import trivial_servers
from loadtest.peers.comparison import compare
from loadtest.peers.tools import AIPERF, GUIDELLM, TOOLS, VLLM, PeerError, PeerLoad, PeerTool
from loadtest.show.peer_sections import peer_document, peer_section
from orchestrator.parsing.replies.report_sections import parse_sections
from tests.hosts.running import wait_until
from tests.workloads.conftest import NodeFolder, finish, node_folder
from tests.workloads.test_loadtest_runs import start

# What each tool wrote about a server on a test machine.
RESULTS = Path(__file__).parents[1] / "fixtures" / "peers"
# A tool that takes no time: it writes the result that its test gives it, or does as it is told.
TOOL = """#!{python}
import json, pathlib, sys, time
words = sys.argv
folder = pathlib.Path(words[words.index("--result-dir") + 1])
prompts = [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").open()]
assert len(set(prompts)) == len(prompts) == int(words[words.index("--num-prompts") + 1])
print("the tool begins", flush=True)
{what}
"""
WRITES = "(folder / 'vllm_bench.json').write_text(pathlib.Path({path!r}).read_text())"


def result_of(tool: PeerTool) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / tool.result).read_text())
    return document


def load_of(tmp_path: Path, **changes: Any) -> PeerLoad:
    values = {
        "target": Target(url="http://gpu01:8000/v1", model="m"),
        "requests": 40,
        "rate": 2.0,
        "concurrency": 0,
        "arrival": "constant",
        "burstiness": 0.5,
        "output_tokens": 16,
        "ignore_eos": True,
        "seed": 3,
        "processes": 1,
        "tokenizer": "/models/m",
        "folder": tmp_path,
    }
    return PeerLoad(**{**values, **changes})


@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_results_of_real_tools_are_read(tool: PeerTool) -> None:
    found = tool.read(result_of(tool))
    assert (found.completed, found.failed) == (60, 0)
    figures = found.figures
    assert 0 < figures["ttft_p50"] <= figures["ttft_p90"] <= figures["ttft_p99"] < 2
    assert figures["ttft_mean"] < figures["request_latency_mean"] < 2
    assert figures["requests_per_s"] == pytest.approx(1, rel=0.1)
    assert figures["output_tokens_per_s"] == pytest.approx(16, rel=0.1)
    assert ("tpot_mean" in figures) == (tool is not AIPERF)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(list(TOOLS.values())), st.data())
def test_a_result_of_another_form_is_refused(tool: PeerTool, data: st.DataObject) -> None:
    """Whatever one of its fields is: a figure within bounds, or a refusal."""
    whole = document = result_of(tool)
    if tool is GUIDELLM:
        document = document["benchmarks"][0]["metrics"]
        document = data.draw(st.sampled_from([whole, document, document["request_latency"]]))
    document[data.draw(st.sampled_from(sorted(document)))] = data.draw(json_values)
    with suppress(PeerError):
        found = tool.read(whole)
        assert all(0 <= value <= 1e9 for value in found.figures.values())


def test_all_are_asked_for_our_load(tmp_path: Path) -> None:
    """Arrivals by each tool's own words; a closed loop has no rate."""
    words = {tool.name: tool.argv(load_of(tmp_path)) for tool in TOOLS.values()}
    for name, pairs in {
        "vllm": {"--request-rate": "2.0", "--burstiness": "inf", "--num-prompts": "40",
                 "--custom-output-len": "16", "--base-url": "http://gpu01:8000",
                 "--endpoint": "/v1/chat/completions"},
        "aiperf": {"--request-rate": "2.0", "--arrival-pattern": "constant",
                   "--request-count": "40", "--url": "http://gpu01:8000"},
        "guidellm": {"--profile": "kind=constant,rate=2.0",
                     "--constraint": "kind=max_requests,count=40",
                     "--tokenizer": "kind=huggingface_auto,model=/models/m"},
    }.items():  # fmt: skip
        given = dict(zip(words[name], words[name][1:], strict=False))
        assert {key: given[key] for key in pairs} == pairs
    poisson = VLLM.argv(load_of(tmp_path, arrival="poisson"))
    assert poisson[poisson.index("--burstiness") + 1] == "1.0"
    gamma = AIPERF.argv(load_of(tmp_path, arrival="gamma"))
    assert gamma[gamma.index("--arrival-smoothness") + 1] == "0.5"
    for tool in TOOLS.values():
        closed = " ".join(tool.argv(load_of(tmp_path, rate=None, concurrency=8)))
        assert "rate=" not in closed.replace("--request-rate ", "rate=")
        assert re.search(r"[ =]8\b", closed)
    backend = words["guidellm"][words["guidellm"].index("--backend") + 1].split(",")
    assert {"target=http://gpu01:8000", "max_tokens=16", "extras.body.ignore_eos=true"} <= {
        *backend
    }
    with pytest.raises(PeerError, match="comma"):
        GUIDELLM.argv(load_of(tmp_path, tokenizer="/models/a,b"))
    with pytest.raises(PeerError, match="ends in /v1"):
        VLLM.argv(load_of(tmp_path, target=Target(url="http://gpu01:8000/api", model="m")))


def test_figures_are_compared_by_the_tools_definitions() -> None:
    """Of a record that was sent late, both tools count from the moment of its sending."""
    record = RequestRecord(
        index=0,
        scheduled_s=1.0,
        sent_s=1.5,
        chunks_s=(2.0, 2.1, 2.4),
        end_s=2.4,
        output_tokens=3,
    )
    summary, again = (Summary(DEFINITIONS[VLLM.definition], Objectives()) for _ in range(2))
    summary.add("here", record)
    again.add("here", replace(record, chunks_s=(2.5, 2.6, 2.9), end_s=2.9))
    theirs = VLLM.read(result_of(VLLM))
    found = compare(VLLM, 61, summary, again, theirs)
    pairs = {pair.name: pair for pair in found.pairs}
    assert pairs["ttft_mean"].ours == pytest.approx(0.5)
    assert pairs["tpot_p50"].ours == pytest.approx(0.2)
    wanted = (0.9 + 1.4) / 2 / theirs.figures["request_latency_mean"] - 1
    assert pairs["request_latency_mean"].apart == pytest.approx(wanted)
    assert pairs["request_latency_mean"].drift == pytest.approx(1.4 / 0.9 - 1)
    document = peer_document(found)
    assert document["figures"]["ttft_mean"]["theirs"] == theirs.figures["ttft_mean"]
    section = peer_section(found)
    assert "of its 61 requests 60 succeeded" in section["note"]
    sections = {"schema_version": 1, "sections": [section]}
    parse_sections(json.dumps(sections).encode(), where="it")


@pytest.fixture
def node(tmp_path: Path) -> NodeFolder:
    return node_folder(tmp_path / "node")


def run_with_tool(node: NodeFolder, what: str, *options: str) -> Any:
    """A short load on the trivial server, and then this tool; the process and its server."""
    program = node.path / "vllm"
    program.write_text(TOOL.format(python=sys.executable, what=what))
    program.chmod(0o755)
    return (
        "--rate=50",
        "--duration=1",
        "--cross-check=vllm",
        f"--cross-check-program={program}",
        "--cross-check-tokenizer=x",
        *options,
    )


@pytest.mark.processes
def test_both_figures_stand_side_by_side(node: NodeFolder) -> None:
    with trivial_servers(1) as (target,):
        what = WRITES.format(path=str(RESULTS / VLLM.result))
        out, err = finish(process := start(node, target, *run_with_tool(node, what)))
    assert process.returncode == 0, (out, err)
    metrics = node.metrics()
    theirs = VLLM.read(result_of(VLLM)).figures
    assert metrics["vllm_ttft_mean"] == pytest.approx(theirs["ttft_mean"])
    output = node.path / "output"
    found = json.loads((output / "cross_check.json").read_text())
    assert found["requests"] == {"asked": 50, "completed": 60, "failed": 0}
    assert found["figures"]["ttft_p50"]["ours"] > 0
    assert found["figures"]["ttft_p50"]["again"] > 0
    again = (output / "requests-again.jsonl").read_text().splitlines()
    assert len(again) == 50
    prompts = (output / "cross_check" / "prompts.jsonl").read_text()
    asked = [json.loads(line) for line in prompts.splitlines()]
    marks = [int(entry["prompt"].partition(" ")[0][4:]) for entry in asked]
    assert marks == list(range(52, 102)), "behind two of the warm-up and fifty of ours"
    assert "Cross-check with vllm" in (output / "report_sections.json").read_text()


@pytest.mark.processes
@pytest.mark.parametrize(
    "what, words",
    [
        ("sys.exit('no such model')", "vllm ended with status 1, see cross_check.log: no such mod"),
        ("pass", "vllm left no vllm_bench.json"),
        ("(folder / 'vllm_bench.json').write_text('{}')", "request_throughput is None, not a num"),
    ],
)
def test_a_tool_that_fails_costs_none_of_our_figures(
    node: NodeFolder, what: str, words: str
) -> None:
    with trivial_servers(1) as (target,):
        _, err = finish(process := start(node, target, *run_with_tool(node, what)))
    assert process.returncode == 1
    assert words in err
    assert node.metrics()["load_valid"] == 1
    assert node.metrics()["ttft_p50"] > 0


@pytest.mark.processes
def test_a_stop_ends_the_tool_and_keeps_our_figures(node: NodeFolder) -> None:
    log = node.path / "output" / "cross_check.log"
    with trivial_servers(1) as (target,):
        process = start(node, target, *run_with_tool(node, "time.sleep(600)"))
        wait_until("the tool", lambda: log.exists() and b"begins" in log.read_bytes(), 60)
        process.terminate()
        _, err = finish(process)
    assert process.returncode == 1
    assert "the cross-check was stopped; the figures of our own load stand" in err
    assert node.metrics()["load_valid"] == 1


@pytest.mark.processes
def test_a_tool_that_is_not_there_is_said_before_any_load(node: NodeFolder) -> None:
    with trivial_servers(1) as (target,):
        options = ("--cross-check=aiperf", "--cross-check-program=/nowhere/aiperf")
        _, err = finish(process := start(node, target, *options))
    assert process.returncode == 2
    assert "/nowhere/aiperf is not on this node; install it there (pip install aiperf==" in err
    assert not (node.path / "output" / "requests.jsonl").exists()
