"""The mlperf script as a whole, as ranks that share nothing start it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mlperf import run
from mlperf.parameters import Parameters
from mlperf.serving_engine import ServingEngine
from tests.workloads.conftest import DEADLINE_S, MLPERF, finish, node_folder
from tests.workloads.declared import declared
from tests.workloads.programs.answer_groups import answer_groups

SCRIPT = MLPERF / "run.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
    pytest.mark.timeout(DEADLINE_S),
]


@pytest.fixture(scope="module", autouse=True)
def unchanged_torch() -> Iterator[None]:
    """Engines set torch up for their whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_two_ranks_answer_every_prompt_as_one_would(tmp_path: Path, cache: Path) -> None:
    """Each makes its own model, answers its groups, and tells what it did under its name."""
    nodes = [node_folder(tmp_path / name) for name in ("first", "second")]
    ranks = [
        node.start(
            str(SCRIPT),
            "--samples=18",
            "--cache-dir=./cache",
            RANK=str(rank),
            WORLD_SIZE="2",
            ORCHESTRATE_NODE=node.path.name,
            OMP_NUM_THREADS=str(1 + 4 * rank),
        )
        for rank, node in enumerate(nodes)
    ]
    told = [finish(rank) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], told
    lines = [
        json.loads(line)
        for rank, node in enumerate(nodes)
        for line in (node.path / "output" / f"samples-{rank}.jsonl").read_text().splitlines()
    ]
    answers = {line["index"]: [line["text"], line["tokens"]] for line in lines}
    engine = ServingEngine(declared(Parameters, cache_dir=str(cache)), 0)
    expected = answer_groups(engine, range(0, 16, 4))

    assert sorted(answers) == list(range(18))
    for first, (_, group) in expected.items():
        assert [answers[int(first) + place] for place in range(4)] == group
    assert {out.partition("fingerprint ")[2][:16] for out, _ in told} == {engine.fingerprint[:16]}
    for rank, node in enumerate(nodes):
        reported = node.metrics(rank)
        name = node.path.name
        assert reported[f"prefill_tokens_per_s.{name}"] > 0
        assert reported[f"decode_tokens_per_s.{name}"] > 0
        assert [r["final"] for r in node.records(rank) if r["type"] == "energy"][-1:] == [True]


def test_the_last_words_name_the_rank_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line on stderr, whatever went wrong."""
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(RuntimeError) as caught:
        ServingEngine(declared(Parameters, device="cuda"), local_rank=7)
    parameters = declared(Parameters, batch=512)

    words = run._last_words(caught.value, parameters)
    assert words.startswith("mlperf: rank 3: RuntimeError: local rank 7 has no GPU")
    assert words.endswith("pass --device cpu")
    words = run._last_words(torch.OutOfMemoryError("tried to\nallocate"), parameters)
    assert words.startswith("mlperf: rank 3: out of memory with --batch 512")
    assert "\n" not in words
