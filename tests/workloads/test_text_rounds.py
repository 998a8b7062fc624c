"""What `scripts/gpu_check` trains on: text of this machine, each file once, none of it held out."""

from __future__ import annotations

import json
from pathlib import Path

from gpu_check_lib.text_rounds import (
    MARK,
    collect_texts,
    compare,
    make_workload,
    write_conversations,
)

from finetune.base.settings import Settings
from finetune.data.conversations import load_conversations
from orchestrator.parsing.inputs.workloads.workload_file import load_workload
from tests.workloads.declared import declared


def test_equal_files_and_those_with_the_templates_marks_are_left_out(tmp_path: Path) -> None:
    """The rest is cut, and comes in the same order from wherever it lies."""
    texts = {f"f{number}.py": f"x = {number}\n" * 100 for number in range(6)}
    texts |= {
        "same.txt": texts["f1.py"],
        "mark.md": MARK * 300,
        "short.py": "x",
        "f.bin": "y" * 999,
    }
    found = []
    for folder, names in (("one", sorted(texts)), ("other", sorted(texts, reverse=True))):
        for name in names:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(texts[name])
        found.append(collect_texts([tmp_path / folder], each=400, most=10**6))
    assert found[0] == found[1]
    assert len(found[0]) == 6
    assert all(len(text) == 400 for _, text in found[0])
    assert len(collect_texts([tmp_path / "one"], each=400, most=800)) == 2


def test_the_workload_reads_the_conversations_and_holds_some_out(tmp_path: Path) -> None:
    texts = [(f"f{number}.py", f"x = {number}\n" * 50) for number in range(20)]
    write_conversations(tmp_path / "data.jsonl", texts)
    settings = declared(Settings, dataset=str(tmp_path / "data.jsonl"), eval_conversations=5)
    training, held_out = load_conversations(settings)
    answers = [{each["messages"][1]["content"] for each in part} for part in (training, held_out)]
    assert [len(part) for part in answers] == [15, 5]
    assert answers[0] | answers[1] == {text for _, text in texts}


def test_the_workload_of_text_has_no_gates_of_generated_conversations(tmp_path: Path) -> None:
    path = make_workload(tmp_path) / "workload.yaml"
    workload = load_workload(path.read_bytes(), path.name, str(path.parent))
    assert all(metric.gate is None for metric in workload.metrics.values())
    assert workload.metrics["eval_loss"].required


def test_a_goal_is_met_by_both_figures_or_not_at_all() -> None:
    values = {"tokens_per_s": (100.0, 94.0), "eval_loss": (2.0, 2.03), "watts": (500.0, 490.0)}
    runs = [
        {"metrics": {name: {"value": pair[at]} for name, pair in values.items()}} for at in (0, 1)
    ]
    found = {record["name"]: record for record in compare(runs[0], runs[1], [7, 7])}
    assert found["tokens trained on"]["met"]
    assert not found["tokens_per_s"]["met"]
    assert found["eval_loss"]["met"]
    assert "met" not in found["watts"]
    assert (
        "met" not in {r["name"]: r for r in compare(runs[0], {"metrics": {}}, [7, 7])}["eval_loss"]
    )
    json.dumps(found)
