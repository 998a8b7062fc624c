"""What follows `--`, read as Python and the user mean it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.catalog.project import open_script
from orchestrator.core.base.errors import UsageError
from orchestrator.core.launchers.typed import script_warnings, typed_launcher, typed_warnings
from orchestrator.core.model.inventory import Cluster, NodeSpec, PythonKind, PythonSpec, SshEndpoint
from orchestrator.parsing.inputs.workloads.command_line import (
    job_name,
    python_call,
    refuse_misunderstandings,
    with_interpreter,
)

TELL = "import json, sys; print(json.dumps(sys.argv[1:]))"
OPTIONS = st.sampled_from(
    [
        *(["-u"], ["-B"], ["-sE"], ["-O"], ["-OOu"], ["-X", "utf8"], ["-Xutf8"], ["-W", "ignore"]),
        *(["-Wignore"], ["-uXutf8"], ["-BW", "ignore"], ["--check-hash-based-pycs", "never"]),
    ]
)
WORDS = st.lists(st.sampled_from(["-m", "-c", "x.py", "--", "-u", "a b", "", "--lr=1"]), max_size=3)


@pytest.mark.processes
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    options=st.lists(OPTIONS, max_size=3),
    how=st.sampled_from(["-c", "-Bc", "joined -c", "-m", "joined -m", "script"]),
    arguments=WORDS,
)
def test_words_are_split_where_python_splits_them(
    tmp_path: Path, options: list[list[str]], how: str, arguments: list[str]
) -> None:
    """The interpreter itself says what it took for arguments of the program."""
    (tmp_path / "tell.py").write_text(TELL)
    target = {
        "-c": ["-c", TELL],
        "-Bc": ["-Bc", TELL],
        "joined -c": [f"-c{TELL}"],
        "-m": ["-m", "tell"],
        "joined -m": ["-mtell"],
        "script": ["tell.py"],
    }[how]
    words = [*(word for option in options for word in option), *target, *arguments]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    call = python_call(["python", *words])

    assert call is not None
    assert list(call.arguments) == json.loads(done.stdout)
    assert call.target == {"c": TELL, "m": "tell", "t": "tell.py"}[how[-1]]
    again = [*call.options, *([call.flag] if call.flag else []), call.target, *call.arguments]
    assert python_call(["python", *again]) == call


@pytest.mark.parametrize(
    "words",
    [["python", "-V"], ["python3", "--version"], ["python", "-Bh"], ["labtool"], ["pythonic"]],
)
def test_what_runs_no_program_of_the_users_is_a_plain_command(words: list[str]) -> None:
    assert python_call(words) is None


@pytest.mark.parametrize(
    "words,said",
    [
        (["python"], "given nothing to run"),
        (["python", "-u"], "given nothing to run"),
        (["python", "-"], "given nothing to run"),
        (["python", "-m"], "-m needs a module"),
        (["python", "-c"], "-c needs code"),
        (["-m"], "-m needs a module"),
        (["python", "-Z", "x.py"], "'-Z' is no option of Python"),
    ],
)
def test_a_python_without_a_program_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        python_call(words)
    assert said in caught.value.what


@pytest.mark.parametrize(
    "words,name",
    [
        (["python", "-u", "src/train.py"], "train"),
        (["-m", "pkg.mod"], "mod"),
        (["python", "-c", "print(1)"], "python"),
        (["./job.sh"], "job"),
    ],
)
def test_a_run_is_called_after_what_runs(words: list[str], name: str) -> None:
    assert job_name(words) == name


@pytest.mark.parametrize(
    "typed,name,instead",
    [
        (
            "torchrun --nproc-per-node 1 ddp.py --lr 1",
            "torchrun",
            "--ranks-per-node 1 -- ddp.py --lr 1",
        ),
        ("torchrun --standalone -m jobs.ddp x", "torchrun", "-- -m jobs.ddp x"),
        (
            "python3 -u -m torch.distributed.run --nproc_per_node=8 t.py",
            "torchrun",
            "--ranks-per-node 8 -- t.py",
        ),
        ("accelerate launch --num_processes 4 t.py", "accelerate launch", "-- t.py"),
        (
            "deepspeed --num_gpus=2 t.py --deepspeed ds.json",
            "deepspeed",
            "--ranks-per-node 2 -- t.py",
        ),
        ("mpirun -np 8 ./a.out", "mpirun", "-- SCRIPT ARGS..."),
        ("env A=1 nice -n 5 torchrun t.py", "torchrun", "-- t.py"),
        ("conda run -n llm torchrun t.py", "torchrun", "-- t.py"),
        ("uv run --with x accelerate launch t.py", "accelerate launch", "-- t.py"),
        ("/opt/bin/torchrun t.py", "torchrun", "-- t.py"),
        ("bash -c 'torchrun t.py --lr 1'", "torchrun", "-- t.py --lr 1"),
        ("bash -lc '. env/bin/activate && A=1 exec torchrun t.py'", "torchrun", "-- t.py"),
        ("sh -c 'cd src; accelerate launch t.py'", "accelerate launch", "-- t.py"),
        ("bash -c 'torchrun t.py 2>&1 | tee log'", "torchrun", "-- t.py"),
        ("accelerate-launch t.py", "accelerate-launch", "-- t.py"),
        ("nsys profile -o out torchrun t.py", "torchrun", "-- t.py"),
        ("sudo -E torchrun t.py", "torchrun", "-- t.py"),
        ("sudo -E uv run torchrun t.py", "torchrun", "-- t.py"),
        ("uvx --from torch torchrun t.py", "torchrun", "-- t.py"),
        ("uv run -m torch.distributed.run t.py", "torchrun", "-- t.py"),
        ("pixi run -e cuda torchrun t.py", "torchrun", "-- t.py"),
        ("ncu -o out torchrun t.py", "torchrun", "-- t.py"),
        ("ray job submit -- python t.py", "ray job", "-- t.py"),
        ("axolotl train x.yaml", "axolotl train", "-- SCRIPT ARGS..."),
        ("swift sft --model x", "swift sft", "-- SCRIPT ARGS..."),
        ("torchpack dist-run -np 4 python t.py", "torchpack dist-run", "-- t.py"),
        ("mpirun.openmpi -np 4 python t.py", "mpirun.openmpi", "-- t.py"),
        ("sbatch run.sh", "sbatch", "-- SCRIPT ARGS..."),
        ("salloc -N 2 srun t.py", "salloc", "-- t.py"),
        ("flux run -N 2 python t.py", "flux run", "-- t.py"),
        ("sky launch x.yaml", "sky launch", "-- SCRIPT ARGS..."),
        ("python -m deepspeed.launcher.launch t.py", "deepspeed", "-- t.py"),
        ("apptainer exec --nv i.sif torchrun t.py", "torchrun", "--container IMAGE -- t.py"),
        (
            "sudo docker run --gpus all -v /a:/b i torchrun --nproc_per_node 2 t.py",
            "torchrun",
            "--container IMAGE --ranks-per-node 2 -- t.py",
        ),
    ],
)
def test_a_launcher_in_front_of_the_script_is_refused(typed: str, name: str, instead: str) -> None:
    """Three worlds of one would all succeed. What to type in its place is said."""
    words = tuple(shlex.split(typed))  # as the command line has them
    with pytest.raises(UsageError) as caught:
        refuse_misunderstandings(words, "auto")
    assert caught.value.what.startswith(f"{name} would start a world of its own")
    assert instead in str(caught.value)
    refuse_misunderstandings(words, "command")
    (warning,) = typed_warnings(words)
    assert name in warning


@pytest.mark.parametrize(
    "command",
    [
        "pip install deepspeed",
        "grep torchrun x.py",
        "accelerate config",
        "echo mpirun",
        "env",
        "uv sync",
        "uv run pytest",
        "docker ps",
        "docker run img ls",
        "flux jobs",
        "ray status",
        "tune ls",
        "sudo ls x.py",
        "bash -c 'torchrun",
        "bash -c 'a;'",
        "bash torchrun.sh -c",
    ],
)
def test_other_commands_that_name_a_launcher_are_none(command: str) -> None:
    assert typed_launcher(tuple(command.split())) is None
    assert list(typed_warnings(command.split())) == []


@pytest.mark.parametrize(
    "command",
    [
        *("nohup python t.py", "env A=1 python3 -m x", "uv run python t.py"),
        *(
            "nsys profile python t.py",
            "uv run t.py --lr 1",
            "uv run -m pkg.mod",
            "xvfb-run python t.py",
        ),
        *("bash -c 'python t.py x'", "sudo -u bob python3 t.py", "poetry run t.py"),
        *("coverage run t.py", "coverage run -m pkg.mod", "ipython t.py", "kernprof -l t.py"),
        *("docker run --rm img python t.py", "singularity exec x.sif python3 -m pkg.mod"),
    ],
)
def test_a_python_behind_a_prefix_is_warned_about(command: str) -> None:
    """It runs as it stands, so its ranks do not meet."""
    refuse_misunderstandings(shlex.split(command), "auto")
    (warning,) = typed_warnings(shlex.split(command))
    assert "MASTER_ADDR" in warning


SCRIPT = """\
#!/bin/bash
# torchrun old.py
set -e; module load cuda
if [ -n "$A" ]; then
  {call}
fi
"""


@pytest.mark.parametrize(
    "call,told",
    [
        ("torchrun --nproc-per-node 8 t.py", "calls torchrun, --ranks-per-node 8 -- t.py"),
        ("exec accelerate launch \\\n    t.py", "calls accelerate launch, -- t.py"),
        ('"$PYTHON" -m torch.distributed.run t.py', "calls torchrun, -- t.py"),
        ("time deepspeed t.py 2>&1 | tee log", "calls deepspeed, -- t.py"),
        ("(cd src && mpirun -np 2 ./a.out)", "calls mpirun, -- SCRIPT ARGS..."),
        # The form of many published scripts: several nodes could be said, one is.
        (
            "torchrun --nproc_per_node=8 --nnodes=1 --node_rank=0 --master_addr=localhost t.py",
            "calls torchrun, --ranks-per-node 8 -- t.py",
        ),
        (
            "torchrun --rdzv-backend=c10d --rdzv-endpoint=localhost:0 t.py",
            "calls torchrun, -- t.py",
        ),
        (
            "torchrun --nnodes=2 --node_rank=0 --master_addr=h t.py",
            "gives every node the rank 0, -- t.py",
        ),
        (
            "accelerate launch --num_machines 1 --machine_rank $R t.py",
            "calls accelerate launch, -- t.py",
        ),
        (
            "accelerate launch --num_machines 2 --machine_rank 1 t.py",
            "gives every node the rank 1, -- t.py",
        ),
        ("deepspeed --hostfile hosts t.py", "calls deepspeed, -- t.py"),
        ("srun --nodes 2 python t.py", "calls srun, -- t.py"),
        ("LAUNCH='torchrun --standalone'\n$LAUNCH t.py", "calls torchrun, -- t.py"),
        (
            "N=1\nARGS=(\n  --nnodes $N\n  --nproc_per_node 4\n)\ntorchrun ${ARGS[@]} t.py",
            "calls torchrun, --ranks-per-node 4 -- t.py",
        ),
    ],
)
def test_a_launcher_in_a_script_of_the_shell_is_warned_about(call: str, told: str) -> None:
    """With its line: several worlds of one would all succeed."""
    (warning,) = script_warnings("run.sh", SCRIPT.replace("{call}", call))

    what, instead = told.split(", ")
    assert warning.startswith("run.sh:5 " if "\n" not in call else "run.sh:")
    assert what in warning
    assert warning.endswith(f"give {instead}")


@pytest.mark.parametrize(
    "call",
    [
        "python t.py",
        "echo torchrun t.py",
        "torchrun --nnodes $N --node-rank $R --master-addr $HEAD t.py",
        "torchrun --nnodes=1:2 --rdzv-endpoint=$HEAD:29400 t.py",
        "accelerate launch --machine_rank $R --main_process_ip $HEAD t.py",
        "deepspeed --no_ssh --node_rank $R t.py",
        'ARGS="--nnodes $N --node_rank $R"\ntorchrun $ARGS t.py',
        "torchrun 'open",
        "",
    ],
)
def test_other_scripts_of_the_shell_are_not(call: str) -> None:
    """Whoever names several nodes may know of them."""
    assert list(script_warnings("run.sh", SCRIPT.replace("{call}", call))) == []


def test_a_word_of_the_shell_and_a_notebook_are_no_commands(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="word of a shell"):
        refuse_misunderstandings(["source", "run.sh"], "auto")
    (tmp_path / "nb.ipynb").write_text("{}")
    with pytest.raises(UsageError, match="notebook"):
        open_script(["python", "nb.ipynb"], cwd=tmp_path)


def test_options_for_a_scheduler_are_said_to_have_no_effect() -> None:
    (warning,) = script_warnings("job.slurm", "#!/bin/bash\n#SBATCH --nodes=4\npython t.py\n")

    assert "#SBATCH" in warning
    assert "--launcher slurm" in warning


def test_variables_that_name_each_other_have_an_end() -> None:
    """However many words they would be."""
    text = "A=" + '"' + "$A " * 600 + '"\n' + "torchrun $A t.py\n"

    assert len(list(script_warnings("run.sh", text))) == 1


@pytest.mark.parametrize("command", ["bash run.sh", "sh -x run.sh 1", "./run.sh", "./run"])
def test_the_script_that_a_command_runs_is_read(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run.sh", "run"):
        (tmp_path / name).write_text(SCRIPT.replace("{call}", "torchrun t.py"))
        (tmp_path / name).chmod(0o755)

    job = open_script(command.split(), cwd=tmp_path)

    assert [warning.split()[1:3] for warning in job.workload.warnings] == [["calls", "torchrun,"]]


@pytest.mark.parametrize(
    "words,remedy", [(["CUDA_VISIBLE_DEVICES=0", "python", "t.py"], "--env CUDA_VISIBLE_DEVICES=0")]
)
def test_an_assignment_is_no_command(words: list[str], remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        refuse_misunderstandings(words, "auto")
    assert remedy in str(caught.value)


def _cluster(python: PythonSpec) -> Cluster:
    nodes = tuple(
        NodeSpec(name=name, ssh=SshEndpoint(host=name), python=python) for name in ("a", "b")
    )
    return Cluster(name="c", source="c.yaml", nodes=nodes)


VENV = PythonSpec(kind=PythonKind.VENV, value="~/vv")


@pytest.mark.parametrize("words", ["python t.py", "python3 -m x", "-m x", "t.py", "labtool"])
def test_python_means_the_one_that_the_inventory_names(words: str) -> None:
    assert with_interpreter(_cluster(VENV), words.split()) == _cluster(VENV)


def test_a_python_that_is_typed_with_its_path_is_the_ranks() -> None:
    changed = with_interpreter(_cluster(VENV), ["~/other/bin/python", "t.py"])
    assert [node.python.value for node in changed.nodes] == ["~/other/bin/python"] * 2
    bare = with_interpreter(_cluster(PythonSpec()), ["python3.11", "t.py"])
    assert [node.python.value for node in bare.nodes] == ["python3.11"] * 2


@pytest.mark.parametrize("word", ["python3.11", ".venv/bin/python"])
def test_a_python_that_nodes_may_not_have_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="python"):
        with_interpreter(_cluster(VENV), [word, "t.py"])
