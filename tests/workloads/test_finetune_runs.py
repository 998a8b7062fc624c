"""The finetune script as a whole: real processes, real torchrun, real kills."""

from __future__ import annotations

import io
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from finetune.training.checkpoints import newest_checkpoint, save_checkpoint
from tests.time_limits import Deadline
from tests.workloads.conftest import (
    DEADLINE_S,
    FINETUNE,
    QUICK,
    NodeFolder,
    Process,
    finetune_workload,
    finish,
    node_folder,
    start_ranks,
    start_torchrun,
    succeed,
)

SCRIPT = FINETUNE / "train.py"
SHORT = (*QUICK, "--steps=3", "--global-batch=4", "--eval-every=2")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * DEADLINE_S)]


def _wait_for_checkpoint(node: NodeFolder, process: Process) -> None:
    deadline = Deadline(DEADLINE_S)
    while not any(record["type"] == "checkpoint" for record in node.records()):
        assert process.poll() is None, finish(process)[1][-4000:]
        assert not deadline.passed, "no checkpoint in time"
        time.sleep(0.02)


def _wait_for_steps(node: NodeFolder, process: Process, count: int) -> None:
    """Until so many more are done."""
    before = len(node.steps_done())
    deadline = Deadline(DEADLINE_S)
    while len(node.steps_done()) < before + count:
        assert process.poll() is None, finish(process)[1][-4000:]
        assert not deadline.passed, "no step in time"
        time.sleep(0.02)


def test_four_ranks_on_two_nodes_train_as_one_rank_does(tmp_path: Path, beginner: Path) -> None:
    """Same losses and same adapter: 7 rows a step do not divide by 4, and no disk is shared. The
    one trains by autograd, the four by the fused engine.
    """
    options = (*QUICK, "--steps=5", "--global-batch=7", "--micro-batch=2", "--sequence-length=192")
    options += (f"--model={beginner}",)
    single, first, second = (node_folder(tmp_path / name) for name in ("single", "first", "second"))
    succeed(single.fork(str(SCRIPT), *options))
    runs = start_torchrun([first, second], 2, SCRIPT, *options, "--engine=fused")
    for run in runs:
        succeed(run)

    assert len(single.losses()) == 5
    assert first.losses() == pytest.approx(single.losses(), rel=2e-5)
    adapters = [
        load_file(node.path / "output" / "adapter" / "adapter_model.safetensors")
        for node in (first, single)
    ]
    assert_close(*adapters, rtol=1e-3, atol=2e-5)
    assert first.metrics()["function_call_exact_match"] >= 0
    assert first.metrics()["eval_loss"] == pytest.approx(single.metrics()["eval_loss"], rel=1e-4)
    # One rank of each node keeps that node's checkpoint.
    assert [path.name for path in (second.path / "checkpoints").iterdir()] == ["step-00000005"]
    assert second.records(2)
    assert second.records(3) == []


def test_a_killed_run_resumes_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The losses of a run that was killed, then asked to end, and started again each time, are
    those of one that was not.
    """
    options = (*QUICK, "--steps=30", "--global-batch=4")
    whole, broken = node_folder(tmp_path / "whole"), node_folder(tmp_path / "broken")
    succeed(whole.fork(str(SCRIPT), *options, "--lora-dropout=0.1"))
    victim = broken.fork(str(SCRIPT), *options, "--lora-dropout=0.1", "--checkpoint-every=3")
    _wait_for_checkpoint(broken, victim)
    victim.kill()
    finish(victim)
    assert not (broken.path / "output" / "loss.jsonl").exists()
    stopped = broken.fork(str(SCRIPT), *options, "--lora-dropout=0.1", "--checkpoint-every=0")
    _wait_for_steps(broken, stopped, 5)
    stopped.send_signal(signal.SIGTERM)
    finish(stopped)
    assert stopped.returncode == 128 + signal.SIGTERM
    saved = broken.steps_saved()
    assert saved[-1] > saved[-2] + 3, "asked to end, it saved what it had done since"
    resumed = succeed(
        broken.fork(str(SCRIPT), *options, "--lora-dropout=0.1", "--checkpoint-every=3")
    )

    assert f"resumed after step {saved[-1]}" in resumed
    assert broken.losses() == whole.losses()
    assert len(whole.losses()) == 30


def test_a_run_resumes_with_another_number_of_ranks(tmp_path: Path) -> None:
    """Two ranks train, and are asked to end; one goes on from what they saved. The losses are those
    of one rank from the start to the end, but for the order in which numbers are added.
    """
    options = (*QUICK, "--steps=30", "--global-batch=5", "--micro-batch=2")
    whole, broken = node_folder(tmp_path / "whole"), node_folder(tmp_path / "broken")
    succeed(whole.fork(str(SCRIPT), *options))
    (pair,) = start_ranks([broken], 2, SCRIPT, *options, "--checkpoint-every=0")
    _wait_for_steps(broken, pair, 5)
    pair.send_signal(signal.SIGTERM)
    finish(pair)
    (saved,) = broken.steps_saved()
    assert 5 <= saved < 30

    assert f"resumed after step {saved}" in succeed(broken.fork(str(SCRIPT), *options))
    assert len(broken.losses()) == 30
    assert broken.losses() == pytest.approx(whole.losses(), rel=2e-5)
    assert broken.metrics()["eval_loss"] == pytest.approx(whole.metrics()["eval_loss"], rel=1e-4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> NodeFolder:
    """A run with :data:`SHORT` that is over."""
    node = node_folder(tmp_path_factory.mktemp("finished") / "node")
    succeed(node.fork(str(SCRIPT), *SHORT))
    return node


def test_what_was_trained_to_the_end_but_not_evaluated_is_evaluated(
    tmp_path: Path, finished: NodeFolder
) -> None:
    """A run may be asked to end between its last step and the evaluation after it."""
    node = NodeFolder(path=shutil.copytree(finished.path, tmp_path / "node"))
    wanted = node.metrics()["eval_loss"]
    root = node.path / "checkpoints"
    training = json.loads((root / "step-00000003" / "manifest.json").read_text())["training"]
    found = newest_checkpoint(root, training)
    assert found is not None
    state = torch.load(io.BytesIO(found[1]), weights_only=True)
    assert state["recorder"]["eval_losses"].pop(3) == wanted
    save_checkpoint(root, 3, state, training)
    (node.path / "reports" / "rank-0.jsonl").unlink()

    run = node.fork(str(SCRIPT), *SHORT)
    assert "resumed after step 3" in succeed(run)
    assert node.metrics()["eval_loss"] == wanted


def test_a_run_reports_what_the_workload_promises(finished: NodeFolder) -> None:
    """Each declared metric that this machine has and this run asks for, progress at every step, and
    each declared artifact.
    """
    workload, node = finetune_workload(), finished
    apart = {"rounds", "round_bytes", "round_wait"}
    apart |= {"mfu", "watts", "tokens_per_joule", "own_step_s"}  # of GPUs
    apart |= {"usd_per_million_tokens"}  # with a price
    assert set(node.metrics()) == set(workload.metrics) - apart
    done = [record["done"] for record in node.records() if record["type"] == "progress"]
    assert done == [1, 2, 3]
    output = node.path / "output"
    assert all((output / name).exists() for name in workload.artifacts)
    assert len((output / "eval_samples.jsonl").read_text().splitlines()) == 6


def test_running_out_of_memory_ends_with_one_clear_line(tmp_path: Path) -> None:
    """The last line on stderr names the rank, the cause and the options that help."""
    node = node_folder(tmp_path / "node")
    program = (
        "import resource, runpy, sys\n"
        "import torch, transformers, peft\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "limit = used + 1200 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    options = (*QUICK, "--steps=2", "--global-batch=4000", "--micro-batch=4000")
    process = node.fork("-c", program, str(SCRIPT), *options)
    _, err = finish(process)

    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("finetune: rank 0: out of memory with --micro-batch 4000"), err[-3000:]
    assert "--gradient-checkpointing" in last


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    """It fails at that step with the reason, instead of training on."""
    node = node_folder(tmp_path / "node")
    options = ("--steps=30", "--global-batch=2", "--learning-rate=1e30")
    process = node.fork(str(SCRIPT), *QUICK, *options)
    _, err = finish(process)

    assert process.returncode == 1
    assert "TrainingFailed: the loss is nan at step" in err.strip().splitlines()[-1]
