"""Slurm's host lists beside ``scontrol``, and slurm.conf beside a real ``slurmctld``."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from orchestrator.core.base.nodeset import NodeSetError
from orchestrator.parsing.importers.foreign_nodes import ForeignNode
from orchestrator.parsing.importers.slurm import parse_slurm
from orchestrator.parsing.importers.slurm.hostlist import expand_hostlist
from tests.parsing.importers.owners import SlurmNode, slurm_hostnames, slurm_nodes

pytestmark = pytest.mark.processes
COUNT = 300
CORPUS = (
    *(
        "n[001-3]",
        "n[8-010]",
        "n[08-8]",
        "p[8-010]",
        "a[1,01]",
        "gpu[01-03,7]",
        "n1,n1",
        "n[1-3],n1",
    ),
    *("n1 n2", "n[1-3],", ",,n1", "n1,,n2", "n1 ,  n2", "a[1-2]b[3-4]c[5-6]", "[1-3]", "n-[1-2]"),
    *("a[1-2][3-4]", "a[1-2]b[3-4]c[5-6]d[7-8]e[1-2]", "n[0-0]", "n[00-0]", "N[1-2]x[3]", "n.x"),
)
REFUSED = ("n[3-1]", "n[1-9/2]", "n[1 2]", "n[]", "n[1,,2]", "n[-1]", "n[1-2-3]", "n[a-b]")
GRES = (
    *("gpu:4", "gpu:h100:8", "gpu:a100:2,gpu:v100:1", "gpu", "shard:8", "gpu:2,shard:16"),
    *("gpu:h100:8(S:0-1)", '"gpu:3"', "gpu:h100", "gpu:no_consume:4"),
)


def test_host_lists_expand_as_scontrol_does(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Names and their order, which ranks follow; a name that comes twice is one node here."""
    chance = random.Random("slurm")
    lists = [*CORPUS, *(make_list(chance) for _ in range(COUNT))]
    record_property("inputs", len(lists))
    theirs = slurm_hostnames(lists, tmp_path)

    assert None not in theirs
    assert [expand_hostlist(text) for text in lists] == [
        tuple(dict.fromkeys(names or ())) for names in theirs
    ]


def test_what_scontrol_refuses_is_refused(tmp_path: Path) -> None:
    assert set(slurm_hostnames(REFUSED, tmp_path)) == {None}
    for text in REFUSED:
        try:
            names = expand_hostlist(text)
        except NodeSetError:
            continue
        raise AssertionError(f"{text} was read as {names}")


def make_list(chance: random.Random) -> str:
    """One or more items with none to four brackets, and separators of any kind."""
    items = [make_item(chance) for _ in range(chance.randint(1, 3))]
    ends = ["", "", ",", " "]
    return (
        chance.choice(ends)
        + chance.choice([",", " ", ", ", ",,"]).join(items)
        + chance.choice(ends)
    )


def make_item(chance: random.Random) -> str:
    pieces = (chance.choice("abc-x.") + make_bracket(chance) for _ in range(chance.randint(0, 4)))
    return "n" + "".join(pieces)


def make_bracket(chance: random.Random) -> str:
    return f"[{','.join(make_range(chance) for _ in range(chance.randint(1, 2)))}]"


def make_range(chance: random.Random) -> str:
    low = chance.randint(0, 12)
    first = f"{low:0{chance.randint(1, 3)}d}"
    if chance.random() < 0.3:
        return first
    return f"{first}-{low + chance.randint(0, 3):0{chance.randint(1, 4)}d}"


# What generated blocks do not say: forms that are rare, and valid.
FACTS = """\
NodeName=default Gres=gpu:3
NodeName=f1 NodeAddr=127.0.9.1
NodeName=Default Gres=gpu:5
NodeName=f[2-4] NodeHostname=127.0.9.2 Port=[17001-17003] Feature=odd
NodeName=f5 NodeAddr=127.0.9.5 Reason=x\\\\
NodeName=f6\\
  NodeAddr=127.0.9.6 Features=odd*2,y
NodeName=f7 NodeAddr=127.0.9.7\x0bGres=gpu:1 # a comment\u2028NodeName=f8 NodeAddr=127.0.9.8 \\
NODENAME="f[10-11]" NODEADDR="127.0.9.[10-11]" GRES="gpu:2, shard:4"
NodeName=f12 NodeAddr=127.0.9.12 Gres=gpu:h100:no_consume:4(S:0-1)
NodeSet=f1 Nodes=f5
NodeSet=f1 Nodes=f6
NodeSet=odd Feature=odd
PartitionName=Default Nodes=f7
PartitionName=fa,fb
PartitionName=fc Nodes=all
PartitionName=fd Nodes=f1,odd
PartitionName=DEFAULT Nodes=f[10-11]
PartitionName=fe State=DOWN
"""


def test_configurations_mean_what_slurmctld_makes_of_them(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """300 blocks of nodes, defaults, sets and partitions, with files that are included."""
    record_property("inputs", COUNT)
    chance = random.Random("slurm.conf")
    files = make_conf(chance)
    files["slurm.conf"] += FACTS
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    conf = tmp_path / "slurm.conf"
    imported = parse_slurm(
        conf.read_text(), str(conf), lambda name: (name, (tmp_path / name).read_text())
    )
    theirs = slurm_nodes(conf)

    assert len(theirs) >= COUNT
    assert {node.name: as_theirs(node) for node in imported.nodes} == theirs


def as_theirs(node: ForeignNode) -> SlurmNode:
    gpus = node.fields.get("gpus", 0)
    count = gpus["count"] if isinstance(gpus, Mapping) else gpus
    address = node.fields.get("ssh", node.name)
    return SlurmNode(str(address), int(str(count)), frozenset(node.groups))


def make_conf(chance: random.Random) -> dict[str, str]:
    """slurm.conf, and what it includes."""
    files: dict[str, str] = {}
    lines: list[str] = []
    for number in range(COUNT):
        block = make_block(chance, number)
        if chance.random() < 0.1:
            files[f"part{number}.conf"] = "\n".join(block) + "\n"
            block = [f"{chance.choice(['Include', 'include', 'INCLUDE'])} part{number}.conf"]
        lines += block
    return {"slurm.conf": "\n".join(lines) + "\n", **files}


def make_block(chance: random.Random, number: int) -> list[str]:
    """Some nodes with addresses of their own, perhaps new defaults above, a partition below."""
    low, count = chance.randint(0, 9), chance.randint(1, 3)
    names = f"b{number}n" + (f"[{low:02}-{low + count - 1}]" if count > 1 else f"{low}")
    net = f"127.{1 + number // 200}.{number % 200}."
    address = net + (f"[{low + 1}-{low + count}]" if count > 1 else f"{low + 1}")
    key = chance.choice(["NodeAddr", "nodeaddr", "NodeHostname"])
    words = [f"{chance.choice(['NodeName', 'nodename'])}={names}", f"{key}={address}"]
    if chance.random() < 0.5:
        words.append(f"Gres={chance.choice(GRES)}")
    words.append(f"Feature=f{number}")
    join = chance.choice([" ", "  ", " \\\n   "])
    lines = [join.join(words) + chance.choice(["", "  # a comment", "\n# a whole line"])]
    if chance.random() < 0.2:
        lines.insert(0, f"NodeName=DEFAULT CPUs=64 Gres={chance.choice(GRES)}")
    if chance.random() < 0.6:
        lines += make_partition(chance, number, names)
    return lines


def make_partition(chance: random.Random, number: int, names: str) -> list[str]:
    match chance.randint(0, 3):
        case 0:
            return [f"NodeSet=s{number} Nodes={names}", f"PartitionName=p{number} Nodes=s{number}"]
        case 1:
            feature = f"NodeSet=s{number} Feature=f{number}"
            return [feature, f"PartitionName=p{number} Nodes=s{number}"]
        case 2 if number % 50 == 0:
            return [f"PartitionName=p{number} Nodes=ALL"]
        case _:
            return [f"PartitionName=p{number} Nodes={names} Default=NO"]
