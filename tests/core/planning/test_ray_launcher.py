"""What the ray launcher makes of a share, read back by the program that gets it on the node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.base.command import Secret
from orchestrator.core.launchers import LaunchSpec, choose_launcher
from orchestrator.core.launchers.ray import plan_ray
from orchestrator.core.model.plan import ProcessPlan
from orchestrator.node_agent.rank_env.ray_options import Options

SHARE = LaunchSpec(
    node="b",
    node_rank=1,
    names=("a", "b"),
    ranks=(2, 3),
    world_size=4,
    interpreter="/env/bin/python",
    command=("/env/bin/python", "-u", "{snapshot}/w/train.py", "--lr", "--", "a b"),
    master_addr="10.0.0.1",
    master_port="29501",
    gpus=((0, 1), (4, 5)),
    addresses=(("10.0.0.1", "192.168.0.1"), ("10.0.0.2",)),
    token="secret of the run",
)
JOIN = ("ray-address=10.9.9.9:6379",)
HEAD = replace(SHARE, node="a", node_rank=0, ranks=(0, 1))


def _one(share: LaunchSpec) -> tuple[ProcessPlan, Options]:
    (process,) = plan_ray(share)
    assert process.argv[3] == "{rank_env}/ray_world.py"
    return process, Options(process.argv[4:])


def test_nodes_that_meet_form_one_cluster_at_the_rendezvous() -> None:
    _, head = _one(HEAD)
    assert (head.cluster, head.head, head.resource) == ("10.0.0.1:29501", True, "node-0")
    assert [(node.name, node.known_by) for node in head.drive] == [
        ("a", ["node-0"]),
        ("b", ["node-1"]),
    ]
    _, other = _one(SHARE)
    assert (other.cluster, other.head, other.drive) == (head.cluster, False, [])
    assert other.scratch == "{scratch}"
    assert other.master == "10.0.0.1"
    assert [rank["RANK"] for rank in other.ranks] == ["2", "3"]
    assert [rank["LOCAL_RANK"] for rank in other.ranks] == ["0", "1"]
    assert not other.independent
    assert other.program[-6:] == list(SHARE.command)


def test_nodes_that_work_apart_have_a_cluster_each() -> None:
    """None needs another; ranks without a world go on without each other."""
    _, leased = _one(replace(SHARE, apart=True))
    assert (leased.cluster, leased.head) == ("127.0.0.1:0", True)
    assert [node.name for node in leased.drive] == ["b"]
    assert (leased.master, leased.independent) == (None, True)
    assert [rank["RANK"] for rank in leased.ranks] == ["2", "3"]
    _, rounds = _one(replace(SHARE, apart=True, per_node_world=True))
    assert (rounds.master, rounds.independent) == ("127.0.0.1", False)
    assert [(r["RANK"], r["WORLD_SIZE"]) for r in rounds.ranks] == [("0", "2"), ("1", "2")]


def test_in_somebody_elses_cluster_nodes_are_known_by_address() -> None:
    """Nothing is started there, and no token of ours is of any use."""
    process, head = _one(replace(HEAD, options=JOIN))
    assert (head.join, head.scratch, head.head) == ("10.9.9.9:6379", None, False)
    assert [(n.name, n.gpus, n.known_by) for n in head.drive] == [
        ("a", {"0", "1"}, ["10.0.0.1", "192.168.0.1"]),
        ("b", {"4", "5"}, ["10.0.0.2"]),
    ]
    assert process.env == ()
    assert _one(replace(SHARE, options=JOIN))[1].drive == []


def test_a_cluster_of_the_runs_own_is_for_its_nodes_only() -> None:
    """All nodes have the token, another run has another one, and no text shows it."""
    tokens = []
    for share in (HEAD, SHARE, replace(SHARE, token="secret of another run")):
        process, _ = _one(share)
        assert SHARE.token not in str(process)
        (token,) = [v.value for v in process.env if v.name == "RAY_AUTH_TOKEN"]
        assert isinstance(token, Secret)
        assert token.reveal() not in str(process)
        tokens.append(token)
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize("asked", ["auto", "torchrun", "ray"])
def test_the_plan_says_why_ray(asked: str) -> None:
    """auto does not choose it by itself; an address is told as the reason."""
    launcher, _ = choose_launcher(asked, program=(), has_torch=True)
    assert launcher == ("torchrun" if asked == "auto" else asked)
    _, why = choose_launcher("ray", program=(), has_torch=True, options=JOIN)
    assert "10.9.9.9:6379" in why
