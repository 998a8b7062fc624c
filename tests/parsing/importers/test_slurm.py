"""Slurm's lists, tables, records and configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import GpuSpec
from orchestrator.parsing.importers.slurm import parse_slurm
from orchestrator.parsing.importers.slurm.gres import gpus_of
from orchestrator.parsing.importers.slurm.states import state_trouble
from tests.parsing.importers.reading import gpus, imported_from, loaded, routes

SCONTROL = """\
NodeName=g1 Arch=x86_64 CoresPerSocket=48
   Gres=gpu:h100:8(S:0-1)
   NodeAddr=192.0.2.1 NodeHostName=g1
   OS=Linux 6.1.0 #1 SMP Debian
   State=IDLE+DRAIN Partitions=train,debug
   Reason=fan=slow in slot 3 [root@2026-01-01T00:00:00]

NodeName=g2 Arch=x86_64
   Gres=(null)
   Partitions=train
"""


@pytest.mark.parametrize(
    "text,expected",
    [
        ("gpu[01-03],login1\n", {"gpu01": None, "gpu02": None, "gpu03": None, "login1": None}),
        ("a\nb\n", {"a": None, "b": None}),
        ("gpu[1-2] gpu:a100:4(S:0-1)\n", {"gpu1": 4, "gpu2": 4}),
        ("a, b  c,,\n# words\nd  # more\n", dict.fromkeys("abcd")),
        ("n[1-2]-ib0\n", {"n1-ib0": None, "n2-ib0": None}),
        ("NodeName=DEFAULT CPUs=8\nNodeName=g[1-2] Gres=gpu:2,gpu:2\n", {"g1": 4, "g2": 4}),
        ("nodename = g1 gres = gpu:2\n", {"g1": 2}),
    ],
)
def test_lists_and_lines(text: str, expected: dict[str, int | None]) -> None:
    """Folded lists, one name a line, gres beside them, lines of slurm.conf."""
    assert gpus(parse_slurm(text, "s")) == expected


def test_defaults_hold_for_the_lines_below_them() -> None:
    """A second one adds to the first."""
    text = (
        "NodeName=early\nNodeName=DEFAULT Gres=gpu:4 State=UNKNOWN\nNodeName=a\n"
        "NodeName=DEFAULT CPUs=8\nNodeName=b\nNodeName=DEFAULT Gres=gpu:2\nNodeName=c\n"
        "NodeName=d Gres=gpu:1\n"
    )
    imported = parse_slurm(text, "s")

    assert gpus(imported) == {"early": None, "a": 4, "b": 4, "c": 2, "d": 1}
    assert imported.warnings == ()


def test_a_configuration_with_what_it_includes(tmp_path: Path) -> None:
    """Addresses run in parallel to names; partitions and sets of nodes; nodes of another file."""
    cluster = imported_from(
        tmp_path,
        "slurm",
        {
            "slurm.conf": "ClusterName=lab\nSlurmctldHost=head(192.0.2.9)\n"
            "NodeName=n[1-2] NodeAddr=192.0.2.[11-12] \\\n  Gres=gpu:h100:8 # both\n"
            "NodeName=n3 NodeHostname=h3.lab Feature=big,ib\n"
            "INCLUDE more.conf\n"
            "NodeSet=large Feature=big\n"
            "PartitionName=DEFAULT MaxTime=60\nPartitionName=train Nodes=n[1-2]\n"
            "PartitionName=wide Nodes=large,n4 Default=YES\nPartitionName=every Nodes=ALL\n",
            "more.conf": "nodename=n4 nodeaddr=192.0.2.14\n",
        },
    )

    assert routes(cluster) == {
        "n1": "192.0.2.11",
        "n2": "192.0.2.12",
        "n3": "h3.lab",
        "n4": "192.0.2.14",
    }
    assert cluster.node("n2").gpus == GpuSpec(count=8, type="h100")
    assert cluster.groups == {
        "train": ("n1", "n2"),
        "every": ("n1", "n2", "n3", "n4"),
        "wide": ("n3", "n4"),
    }


def test_what_scontrol_prints() -> None:
    """Records over several lines; their free text holds anything."""
    imported = parse_slurm(SCONTROL, "s")
    cluster = loaded(imported)

    assert gpus(imported) == {"g1": 8, "g2": None}
    assert routes(cluster) == {"g1": "192.0.2.1", "g2": "g2"}
    assert cluster.groups == {"train": ("g1", "g2"), "debug": ("g1",)}
    reason = "fan=slow in slot 3 [root@2026-01-01T00:00:00]"
    assert imported.warnings == (f"s:1: g1 is idle+drain ({reason})",)
    one_line = " ".join(SCONTROL.partition("\n\n")[0].split())
    assert loaded(parse_slurm(one_line, "s")).groups == {"train": ("g1",), "debug": ("g1",)}


@pytest.mark.parametrize(
    "text,groups",
    [
        (
            "PartitionName=p\n   AllowNodes=ALL\n   Nodes=a[1-2]\n   TotalNodes=2\n",
            {"p": ("a1", "a2")},
        ),
        ("JobId=7 JobName=x\n   JobState=RUNNING\n   NodeList=a[1-2]\n   BatchHost=a1\n", {}),
        ("ReservationName=m Nodes=a[1-2] NodeCnt=2 PartitionName=(null)\n", {}),
        ("ReservationName=m\n   Nodes=a[1-2] NodeCnt=2\n   PartitionName=gpu Flags=MAINT\n", {}),
    ],
)
def test_nodes_of_a_partition_job_or_reservation(
    text: str, groups: dict[str, tuple[str, ...]]
) -> None:
    """As ``scontrol show partition``, ``job`` and ``reservation`` print them."""
    cluster = loaded(parse_slurm(text, "s"))
    assert list(routes(cluster)) == ["a1", "a2"]
    assert cluster.groups == groups


SINFO = (
    "PARTITION AVAIL TIMELIMIT NODES STATE GRES NODELIST\n"
    "gpu* up infinite 2 idle gpu:h100:8 gpu[1-2]\n"
    "all up infinite 3 down* (null) cpu1,gpu[1-2]\n"
)
LONG = """\
Thu Oct 01 10:00:00 2026
NODELIST NODES PARTITION STATE CPUS S:C:T MEMORY TMP_DISK WEIGHT AVAIL_FE REASON
n1 1 train idle 64 2:32:1 512000 0 1 (null) none
n2 1 train drained 64 2:32:1 512000 0 1 (null) a fan is loud
n2 1 debug* drained 64 2:32:1 512000 0 1 (null) a fan is loud
"""
REASONS = """\
REASON               USER      TIMESTAMP           NODELIST
Not enough memory    root      2026-10-01T10:00:00 n2
gone                 slurm     2026-10-02T11:00:00 n[3-4]
"""
QUEUE = """\
JOBID PARTITION NAME USER ST TIME NODES NODELIST(REASON)
7 train a long name bob R 1:00 2 n[1-2]
8 train x bob PD 0:00 2 (Resources)
9 train x bob PD 0:00 2 (Nodes required are down)
"""


@pytest.mark.parametrize(
    "text,nodes,warnings",
    [
        (SINFO, ["gpu1", "gpu2", "cpu1"], ["s:3: cpu1,gpu[1-2] is down*"]),
        (LONG, ["n1", "n2"], ["s:4: n2 is drained (a fan is loud)"]),
        (
            REASONS,
            ["n2", "n3", "n4"],
            ["s:2: n2 is not usable: Not enough memory", "s:3: n[3-4] is not usable: gone"],
        ),
        (QUEUE, ["n1", "n2"], []),
        (
            "HOSTNAMES STATE\nn1 idle*\nn2 mix\n",
            ["n1", "n2"],
            ["s:2: n1 is idle* (not responding)"],
        ),
        ("NODELIST|GRES|\nn1|gpu:2|\n", ["n1"], []),
        ("JobID NodeList\n----- --------\n7 n[1-2]\n8 None assigned\n", ["n1", "n2"], []),
    ],
    ids=["sinfo", "long", "reasons", "squeue", "marks", "parsable", "sacct"],
)
def test_tables(text: str, nodes: list[str], warnings: list[str]) -> None:
    """The header says what the columns are; what keeps a node from running is said once."""
    imported = parse_slurm(text, "s")

    assert list(routes(loaded(imported))) == nodes
    assert list(imported.warnings) == warnings


def test_partitions_of_a_table_are_groups() -> None:
    cluster = loaded(parse_slurm(SINFO, "s"))

    assert cluster.node("gpu1").gpus == GpuSpec(count=8, type="h100")
    assert cluster.groups == {"gpu": ("gpu1", "gpu2"), "all": ("gpu1", "gpu2", "cpu1")}
    assert loaded(parse_slurm(LONG, "s")).groups == {"train": ("n1", "n2"), "debug": ("n2",)}
    assert loaded(parse_slurm(QUEUE, "s")).groups == {}


@pytest.mark.parametrize(
    "line,reason",
    [
        ("n[3-1]", "runs backwards"),
        ("n[-1-3]", "has no minus sign"),
        ("n[1--3]", "has no minus sign"),
        ("n[1-9/2]", "a number or a range"),
        ("n[1 - 3]", "a blank inside a bracket"),
        ("n[1-3", "never closed"),
        ("n[1-20000]", "more than 10000 names"),
        ("n*", "not a node name"),
        ("n1 1 train idle", "without its header"),
        ("n1 gpu:900", "900 GPUs"),
        ("Permission denied", "not all with a number"),
        ("FROM ubuntu", "not all with a number"),
        ("Some nodes are n1 and n2.", "not all with a number"),
        ("Nodes n1, n2 and n3", "not all with a number"),
        ("NODELIST,STATE", "a table's header"),
        ("n1,idle", "without its header"),
        ("n[1-2],down*", "without its header"),
    ],
)
def test_a_list_that_is_not_understood_stops_the_import(line: str, reason: str) -> None:
    """With the reason, also where nothing else is in the file."""
    with pytest.raises(UsageError) as caught:
        parse_slurm(f"ok\n{line}\n", "s")
    assert reason in str(caught.value)
    with pytest.raises(UsageError, match="no host found") as caught:
        parse_slurm(f"{line}\n", "s")
    assert reason in caught.value.why

    assert list(routes(loaded(parse_slurm(f"ok\n{line}\n", "s", skip_unknown=True)))) == ["ok"]


@pytest.mark.parametrize(
    "text,reason",
    [
        ("NodeName=a\nInclude gone.conf\n", "the included file cannot be read"),
        ("NodeName=a\nInclude %c.conf\nClusterName=lab\n", "no ClusterName is given above"),
        ("NodeName=a[1-2] NodeAddr=192.0.2.[1-3]\nNodeName=b\n", "3 addresses for 2 nodes"),
        ("NodeName=a\nNodeName=b[2-1]\n", "runs backwards"),
        ("NodeName=a\nNodeName=a\n", "declared twice"),
    ],
)
def test_a_configuration_that_lacks_something_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_slurm(text, "slurm.conf")
    assert reason in str(caught.value)


def test_what_is_not_there_to_be_used_is_said() -> None:
    """Nodes of the future are no nodes yet; those that are down are."""
    text = (
        'NodeName=a\nNodeName=b State=FUTURE\nNodeName=c State=DOWN Reason="no power"\n'
        "DownNodes=a State=FAIL Reason=old\nPartitionName=p Nodes=a,gone\n"
    )
    imported = parse_slurm(text, "s")

    assert list(routes(loaded(imported))) == ["a", "c"]
    assert imported.warnings == (
        "s:2: b does not exist yet (State=FUTURE): left out",
        "s:3: c is down (no power)",
        "s:4: a is fail (old)",
        "s:5: partition p names gone, which is declared nowhere",
    )


def test_the_name_of_an_included_file_may_hold_the_clusters() -> None:
    """slurm.conf(5), "INCLUDE MODIFIERS"."""
    imported = parse_slurm(
        "ClusterName=lab\nInclude %c/nodes.conf\n", "s", lambda name: (name, f"NodeName={name[:3]}")
    )
    assert list(routes(loaded(imported))) == ["lab"]


def test_includes_end() -> None:
    """A file that includes itself is read to a depth, then refused."""
    with pytest.raises(UsageError, match="nested too deep"):
        parse_slurm("NodeName=a\nInclude x\n", "s", lambda name: (name, "Include x\n"))


@pytest.mark.parametrize(
    "text", ["NodeName=n1 Name=gpu File=/dev/nvidia[0-7]\n", "SwitchName=s Nodes=a\n"]
)
def test_other_files_of_slurm_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"gres\.conf or topology\.conf"):
        parse_slurm(text, "s")


@pytest.mark.parametrize(
    "text,found",
    [
        ("gpu", 1),
        ("gpu:h100", {"count": 1, "type": "h100"}),
        ("gpu:no_consume:4", 4),
        ("gpu:a100:4(IDX:0-3),shard:16", {"count": 4, "type": "a100"}),
        ("gpu:a100:2,gpu:v100:1", 3),
        ("shard:16,nvme:2", None),
        ("(null)", None),
    ],
)
def test_generic_resources(text: str, found: object) -> None:
    assert gpus_of(text) == found


@pytest.mark.parametrize("state", ["idle", "mix", "alloc", "IDLE", "completing", "planned", "resv"])
def test_states_that_are_no_trouble(state: str) -> None:
    assert state_trouble(state) == ""
