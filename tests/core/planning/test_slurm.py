"""The launcher slurm as pure functions: what Slurm is asked for, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.options.option_values import parse_launcher
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.plan import Budgets, Plan, ProcessPlan, Rendezvous
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.scheduled_node import ScheduledNode
from orchestrator.core.planning.planning import Refusal, make_plan
from orchestrator.core.run.events import ProcessExited, RankExited
from orchestrator.core.run.recording import record_event
from orchestrator.core.run.state import new_state
from orchestrator.core.verdict.failure_cause import failure_of
from orchestrator.core.verdict.last_words import ended_from_outside, own_error
from orchestrator.node_agent.slurm.slurm_jobs import parse_duration
from orchestrator.node_agent.slurm.slurm_tools import SlurmError, complaint, find_node
from orchestrator.parsing.replies.supervisor_records import BadRecord, parse_scheduled_node
from tests.core.world import facts, request

PYTHON = "/env/bin/python"
MEETING = Rendezvous(address="10.0.0.1", port=4711)


def asked(*names: str, **fields: object) -> RunRequest:
    made = replace(request(*names), launcher="slurm", token="t0", fabric_probe=True)
    return replace(made, **fields)  # type: ignore[arg-type]


def found(name: str, *, gpus: int = 0, slurm: ScheduledNode | None = None) -> NodeFinding:
    return NodeFinding(
        facts=facts(name, gpus=gpus),
        interpreter=PYTHON,
        modules={"torch": "2.13.0"},
        scheduled=slurm or ScheduledNode(name=f"slurm-{name}", cpus=8, gpus=gpus),
    )


def planned(asked_for: RunRequest, *findings: NodeFinding) -> Plan:
    made = make_plan(asked_for, {f.facts.node: f for f in findings}, {}, MEETING)
    assert isinstance(made, Plan), made
    return made


def srun(made: Plan) -> list[str]:
    """The options that srun gets."""
    argv = made.head.processes[1].argv
    return list(argv[argv.index("--") + 1 :])


def launcher_of(process: ProcessPlan) -> tuple[str, ...]:
    return process.argv[process.argv.index("--") + 1 :]


@given(st.integers(1, 5), st.integers(0, 4))
def test_every_node_offers_torchrun_and_the_first_asks_for_all(nodes: int, gpus: int) -> None:
    names = [f"n{number}" for number in range(nodes)]
    findings = [found(name, gpus=gpus) for name in names]
    made = planned(asked(*names), *findings)
    same = planned(asked(*names, launcher="torchrun"), *findings)
    for share, other in zip(made.nodes, same.nodes, strict=True):
        labels = ["launcher", "slurm"] if share is made.head else ["launcher"]
        assert [process.label for process in share.processes] == labels
        assert launcher_of(share.processes[0]) == other.processes[0].argv
        assert share.env == other.env
        assert f"slurm-{share.name}" in share.processes[0].argv
        holds = made.meets and share is made.head
        assert ("--hold" in share.processes[0].argv) is holds
    options = srun(made)
    assert f"--nodes={nodes}" in options
    assert f"--nodelist={','.join(f'slurm-{name}' for name in names)}" in options
    assert (f"--gpus-per-node={gpus}" in options) is (gpus > 0)
    assert "--cpus-per-task=8" in options
    pairs = [word for word in made.head.processes[1].argv if word.endswith(f"={PYTHON}")]
    assert pairs == [f"slurm-{name}={PYTHON}" for name in names]


def test_limits_of_the_run_are_those_of_the_job() -> None:
    budgets = Budgets(run_s=600.0, grace_s=30.0)
    made = planned(asked("a", budgets=budgets, exclusive=True, wait_s=7.0), found("a"))
    assert "--time=12" in srun(made)
    assert "--exclusive" in srun(made)
    argv = made.head.processes[1].argv
    assert argv[argv.index("--wait") + 1] == "7"
    assert not any(o.startswith("--time") for o in srun(planned(asked("a"), found("a"))))


def test_unequal_nodes_are_asked_for_whole() -> None:
    """Slurm counts GPUs per node in one number only."""
    made = planned(asked("a", "b"), found("a", gpus=8), found("b", gpus=4))
    assert "--exclusive" in srun(made)
    assert not any(option.startswith("--gpus") for option in srun(made))


def test_gpus_that_slurm_does_not_manage_are_not_asked_for() -> None:
    made = planned(asked("a"), found("a", gpus=2, slurm=ScheduledNode(name="a", cpus=4)))
    assert not any(option.startswith("--gpus") for option in srun(made))


def test_a_job_that_the_user_holds_is_used_as_it_is() -> None:
    made = planned(asked("a", "b", launcher_options=("--jobid=12",)), found("a"), found("b"))
    argv = made.head.processes[1].argv
    assert argv[argv.index("--within") + 1] == "12"
    assert {"--overlap", "--jobid=12"} <= set(srun(made))
    assert not any(option.startswith("--cpus-per-task") for option in srun(made))
    assert made.proves_fabric


def test_nodes_that_slurm_is_yet_to_give_are_not_tried() -> None:
    assert not planned(asked("a", "b"), found("a"), found("b")).proves_fabric


def test_the_users_options_come_last_and_win() -> None:
    own = ("--partition=gpu", "--cpus-per-task=2")
    assert srun(planned(asked("a", launcher_options=own), found("a")))[-2:] == list(own)


def test_two_names_of_one_slurm_node_are_not_both_used() -> None:
    one = ScheduledNode(name="gpu7")
    refused = make_plan(asked("a", "b"), {n: found(n, slurm=one) for n in "ab"}, {})
    assert isinstance(refused, Refusal)
    assert refused.problem.message == "b: it is Slurm's node gpu7, as a is"


@pytest.mark.parametrize(
    "option,why",
    [("-p gpu", "long form"), ("--nodelist=a", "plan decides"), ("--ntasks=9", "plan decides")],
)
def test_options_that_make_two_truths_are_refused(option: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_launcher("slurm", {"slurm_options": (option,)}, {})
    assert why in refused.value.why


def test_an_own_job_is_taken_from_the_environment_unless_another_is_named() -> None:
    inside = {"SLURM_JOB_ID": "12"}
    assert parse_launcher("slurm", {}, inside) == ("slurm", ("--jobid=12",))
    other = {"slurm_options": ("--jobid=9",)}
    assert parse_launcher("slurm", other, inside) == ("slurm", ("--jobid=9",))
    assert parse_launcher("torchrun", {}, inside) == ("torchrun", ())
    with pytest.raises(UsageError):
        parse_launcher("torchrun", {"slurm_options": ("--partition=gpu",)}, {})


SINFO = [
    "gpu-1|gpu-1|idle|64|gpu:h100:8(S:0-1)|none",
    "gpu-2|gpu-2.site|mix-|64|gpu:4,nic:2|none",
    "gpu-3|gpu-3|drain|64|(null)|a bad | fan",
    "gpu-4|gpu-4|idle*|64|(null)|Not responding",
    "node5|gpu-5|alloc|16|gpu:2,gpu:a100:1|none",
]


@pytest.mark.parametrize(
    "host,name,cpus,gpus",
    [
        ("gpu-1.example", "gpu-1", 64, 8),
        ("gpu-2", "gpu-2", 64, 4),
        ("gpu-5", "node5", 16, 3),
    ],
)
def test_a_host_is_found_by_any_of_its_names(host: str, name: str, cpus: int, gpus: int) -> None:
    assert find_node(host, SINFO) == {"name": name, "cpus": cpus, "gpus": gpus}


@pytest.mark.parametrize(
    "host,words",
    [("gpu-3", "drain (a bad | fan)"), ("gpu-4", "Not responding"), ("web", "does not know web")],
)
def test_a_node_that_slurm_gives_to_nobody_says_why(host: str, words: str) -> None:
    with pytest.raises(SlurmError) as told:
        find_node(host, SINFO)
    assert words in str(told.value)


def test_slurms_complaints_lose_their_prefixes() -> None:
    said = [
        "srun: job 3 queued and waiting for resources",
        "srun: error: invalid partition specified: nope",
        "srun: error: Unable to allocate resources: Invalid partition name specified",
    ]
    assert complaint(said) == (
        "invalid partition specified: nope; "
        "Unable to allocate resources: Invalid partition name specified"
    )
    assert complaint(["slurm_load_jobs error: Invalid job id specified"]) == (
        "Invalid job id specified"
    )


def test_what_a_node_says_of_slurm_is_checked() -> None:
    good = {"name": "gpu-1", "cpus": 4, "gpus": 0}
    assert parse_scheduled_node(good) == ScheduledNode(name="gpu-1", cpus=4)
    for bad in ({"name": "a,b"}, {"name": "--x"}, {"cpus": -1}, {"gpus": True}, {"cpus": "4"}):
        with pytest.raises(BadRecord):
            parse_scheduled_node({**good, **bad})


def ended(
    last_line: str, *, at: float = 10.0, node: str = "a", by_us: bool = False
) -> ProcessExited:
    return ProcessExited(
        node=node, label="slurm", outcome=Exited(1), at=at, last_line=last_line, by_us=by_us
    )


def test_a_launchers_own_words_are_the_failure() -> None:
    made = planned(asked("a"), found("a"))
    state = replace(new_state(asked("a")), plan=made, launching=True)
    waiting = ended("OR-SLURM-003: after 5 s Slurm's job 7 waits: Priority")
    told = failure_of(record_event(state, waiting))
    assert told is not None
    assert (told[0].id, told[1]) == ("OR-SLURM-003", ExitCode.BUSY)
    assert told[0].cause == "after 5 s Slurm's job 7 waits: Priority"
    assert "--wait" in told[0].remedy


def test_only_processes_without_a_rank_speak_for_the_launcher() -> None:
    line = "OR-SLURM-003: said a rank"
    assert own_error(ended("OR-NONE-001: unknown")) is None
    assert own_error(RankExited(node="a", rank=0, outcome=Exited(1), at=1, last_line=line)) is None


def test_ranks_that_slurm_ended_are_not_to_blame() -> None:
    rank = RankExited(node="a", rank=0, outcome=Signalled(15), at=10.0)
    word = replace(ended("OR-SLURM-005: Slurm ended job 7", at=11.0, by_us=True), label="launcher")
    late, elsewhere = replace(word, at=60.0), replace(word, node="b")
    submission = ended("OR-SLURM-005: Slurm ended the job: CANCELLED", at=12.0, node="b")
    assert ended_from_outside((rank, word), rank) is word
    assert ended_from_outside((rank, word, submission), rank) is submission
    assert ended_from_outside((rank, elsewhere), rank) is None
    assert ended_from_outside((rank, late), rank) is None
    assert ended_from_outside((rank,), rank) is None


@pytest.mark.parametrize(
    "shown,seconds",
    [
        ("59", 59.0),
        ("1:00", 60.0),
        ("29:56", 1796.0),
        ("2:00:05", 7205.0),
        ("1-02:03:04", 93784.0),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_that_slurm_leaves_a_job(shown: str, seconds: float | None) -> None:
    assert parse_duration(shown) == seconds
