"""Host lists of other tools become inventories that load."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import Cluster, GpuSpec, SshEndpoint, TransportKind
from orchestrator.parsing.importers.ansible import parse_ansible
from orchestrator.parsing.importers.foreign_nodes import Imported, render
from orchestrator.parsing.importers.hostfile import parse_hostfile
from orchestrator.parsing.importers.slurm import parse_slurm
from orchestrator.parsing.importers.ssh_aliases import parse_ssh_config
from orchestrator.parsing.inputs.cluster import load_cluster


def loaded(imported: Imported) -> Cluster:
    """The inventory after a round trip through its text."""
    return load_cluster(render(imported, "new", "a test"), "imported.yaml")


def gpus(imported: Imported) -> dict[str, int | None]:
    return {node.name: node.gpus.count for node in loaded(imported).nodes}


def no_include(pattern: str) -> Iterator[tuple[str, str]]:
    raise AssertionError(f"nothing includes {pattern}")


HOSTFILE = """\
# nodes
worker-1 slots=8
worker-2 slots=8 max_slots=8   # comment
bob@worker-3 slots=4
worker-4:2
worker-1 slots=1

10.0.0.5
"""


def test_hostfile_slots_are_gpus() -> None:
    """Open MPI, DeepSpeed and MPICH spellings; slots of one host add up."""
    imported = parse_hostfile(HOSTFILE, "hosts")

    assert gpus(imported) == {
        "worker-1": 9,
        "worker-2": 8,
        "worker-3": 4,
        "worker-4": 2,
        "10.0.0.5": None,
    }
    assert loaded(imported).node("worker-3").ssh.user == "bob"
    assert imported.warnings == ()


def test_hostfile_warns_of_what_it_does_not_understand() -> None:
    """Nothing is dropped in silence."""
    imported = parse_hostfile("a slots=128\nb colour=red\n-oBad slots=1\nfe80::1\nc:x\n", "h")

    assert gpus(imported) == {"a": None, "b": None, "fe80--1": None, "c": None}
    assert loaded(imported).node("fe80--1").ssh.host == "fe80::1"
    assert [warning.split(":")[1] for warning in imported.warnings] == ["1", "2", "3", "5"]


INI = """\
; old comment
loose ansible_host=192.0.2.4
[gpu]
gpu[01:03].lan ansible_port=2222
x.lan:2200 ansible_user=eve   # trailing
[cpu]
m ansible_connection=local
[cluster:children]
gpu
cpu
[cluster:vars]
ansible_user=bob
ansible_ssh_common_args='-o ProxyJump=bob@jump -o StrictHostKeyChecking=no'
colour=red
[gpu:vars]
ansible_ssh_private_key_file=~/.ssh/id
"""


def test_ansible_ini() -> None:
    """Ranges, ports, groups of groups; the nearer variable wins."""
    imported = parse_ansible(INI, "hosts.ini")
    cluster = loaded(imported)

    assert [node.name for node in cluster.nodes] == [
        "loose",
        "gpu01.lan",
        "gpu02.lan",
        "gpu03.lan",
        "x.lan",
        "m",
    ]
    assert cluster.node("loose").ssh == SshEndpoint(host="192.0.2.4")
    assert cluster.node("gpu02.lan").ssh == SshEndpoint(
        host="gpu02.lan", user="bob", port=2222, jump="bob@jump", identity_file="~/.ssh/id"
    )
    assert (cluster.node("x.lan").ssh.user, cluster.node("x.lan").ssh.port) == ("eve", 2200)
    assert cluster.node("m").transport is TransportKind.LOCAL
    assert cluster.groups["cluster"] == ("gpu01.lan", "gpu02.lan", "gpu03.lan", "x.lan", "m")
    assert cluster.groups["cpu"] == ("m",)
    assert any("StrictHostKeyChecking" in warning for warning in imported.warnings)
    assert any("'colour'" in warning for warning in imported.warnings)


def test_an_ansible_port_that_is_none_is_told_of() -> None:
    imported = parse_ansible("[gpu]\na ansible_port=ssh\nb ansible_port=2222\n", "hosts.ini")
    assert loaded(imported).node("b").ssh.port == 2222
    assert any("ansible_port 'ssh' of a is not a number" in text for text in imported.warnings)


YAML = """\
all:
  vars: {ansible_user: bob}
  hosts:
    solo: {ansible_host: 192.0.2.4}
  children:
    gpu:
      hosts:
        gpu[1:5:2]: {ansible_port: 2222, ansible_python_interpreter: /usr/bin/python3.12}
        sealed: !vault abc
      children:
        a100:
          hosts: {q: null}
          vars: {ansible_user: eve}
"""


def test_ansible_yaml() -> None:
    """The same in YAML; a tag is reported, not obeyed."""
    imported = parse_ansible(YAML, "hosts.yml")
    cluster = loaded(imported)

    assert [node.name for node in cluster.nodes] == ["solo", "gpu1", "gpu3", "gpu5", "sealed", "q"]
    assert cluster.node("gpu3").ssh.port == 2222
    assert cluster.node("gpu3").python.value == "/usr/bin/python3.12"
    assert cluster.node("q").ssh.user == "eve"
    assert cluster.node("q").groups == ("gpu", "a100")
    assert imported.warnings == (
        "hosts.yml:9: a tag (a word that begins with '!') is not accepted",
    )


@pytest.mark.parametrize(
    "text",
    ["[a:children]\nb\n[b:children]\na\n[a]\nx\n", "[a:children]\na\n[a]\nx\n"],
)
def test_ansible_groups_in_a_circle_end(text: str) -> None:
    """A group that is its own ancestor is no endless loop."""
    assert gpus(parse_ansible(text, "h")) == {"x": None}


@pytest.mark.parametrize("range_", ["[1:99999999]", "[5:1]", "[a:9]", "[1:9:0]", "[1:200]x[1:200]"])
def test_ansible_ranges_are_bounded(range_: str) -> None:
    """A range that is too large or means nothing is left out with a warning."""
    imported = parse_ansible(f"ok\nweb{range_}\n", "h")

    assert gpus(imported) == {"ok": None}
    assert "left out" in imported.warnings[0]


SSH_CONFIG = """\
Include more
Host a b *.lan !c
  User x
host=d
Match host e
HOST "f" g?  # trailing words, don't count
"""


def test_ssh_config_aliases() -> None:
    """Aliases become nodes, patterns do not; everything else stays in the ssh_config."""
    files = {"more": [("inc", "Host first\nInclude deeper"), ("inc2", "Host second")], "deeper": []}
    imported = parse_ssh_config(
        SSH_CONFIG,
        "config",
        lambda pattern: files[pattern],
        "/etc/my_config",
    )
    cluster = loaded(imported)

    assert [node.name for node in cluster.nodes] == ["first", "second", "a", "b", "d", "f"]
    assert {node.ssh.ssh_config for node in cluster.nodes} == {"/etc/my_config"}
    assert cluster.node("a").ssh.user is None


def test_ssh_config_includes_end() -> None:
    """A file that includes itself is read to OpenSSH's depth, then reported."""
    imported = parse_ssh_config(
        "Host x\nInclude self\n", "self", lambda _: [("self", "Host x\nInclude self\n")]
    )

    assert gpus(imported) == {"x": None}
    assert "nested too deep" in imported.warnings[0]


OWN_FILE = """\
Host g1 # first rack
  HostName 192.0.2.11
Host g2 g4 # don't use at night
  HostName 192.0.2.12
Host bastion outer
  HostName 192.0.2.2
Host g3	# a tab, and "a quote
  ProxyJump bob@outer:2222,bastion
Host github.com
  User git
"""


def names_and_warnings(text: str) -> tuple[list[str], str]:
    imported = parse_ssh_config(text, "config", no_include)
    return [node.name for node in loaded(imported).nodes], "\n".join(imported.warnings)


def test_ssh_config_comments_and_jump_hosts() -> None:
    """A comment is no alias, jump hosts are no nodes, and what was taken is said."""
    names, warnings = names_and_warnings(OWN_FILE)

    assert names == ["g1", "g2", "g4", "g3", "github.com"]
    assert "config:5: bastion is left out: it is the jump host of others (config:8)" in warnings
    assert "config:5: outer is left out" in warnings
    assert "all other aliases became nodes" in warnings
    assert "Git server" in warnings


@pytest.mark.parametrize(
    "line,names",
    [
        ("Host a # b", ["a"]),
        ("Host a b #c d", ["a", "b"]),
        ("Host a b# c", ["a", "b#", "c"]),
        ("Host=a", ["a"]),
        ("Host = a b", ["a", "b"]),
        ('"Host" "a" \'b\'', ["a", "b"]),
        ("host\ta\tb", ["a", "b"]),
        ("Host g* !g3 g4", ["g4"]),
        ("Host a\nHost b\nHost a", ["a", "b"]),
        ("Host a\n  ProxyJump none", ["a"]),
        ("Host a\n  ProxyJump b # c", ["a"]),
        ("Host a\n  ProxyJump a", ["a"]),
    ],
)
def test_ssh_config_forms(line: str, names: list[str]) -> None:
    """Every way to write a list of aliases; a name with a hash inside is no host name."""
    found, warnings = names_and_warnings(f"{line}\n")

    assert found == [name for name in names if "#" not in name]
    assert ("is not a host name" in warnings) == any("#" in name for name in names)


@pytest.mark.parametrize(
    "text,why",
    [
        ("Host *\n  User x\nHost g?? !g01\n", "patterns alone, no name: config:1, config:3"),
        ("User x\n", "it has no 'Host' line"),
    ],
)
def test_ssh_config_without_a_host(text: str, why: str) -> None:
    """Why there is none, and what to write instead."""
    with pytest.raises(UsageError) as caught:
        parse_ssh_config(text, "config", no_include)

    assert caught.value.why == why
    assert "nodes: [" in caught.value.remedy


def test_ssh_config_that_ssh_refuses() -> None:
    """An inventory of it would be of no use: no node could be reached."""
    with pytest.raises(UsageError) as caught:
        parse_ssh_config("Host a\n  Port abc\n", "config", no_include)

    assert caught.value.where == "config:2"


SCONTROL = """\
NodeName=g1 Arch=x86_64 CoresPerSocket=48
   Gres=gpu:h100:8(S:0-1)
   NodeAddr=192.0.2.1 NodeHostName=g1

NodeName=g2 Arch=x86_64
   Gres=(null)
"""


@pytest.mark.parametrize(
    "text,expected",
    [
        ("gpu[01-03],login1\n", {"gpu01": None, "gpu02": None, "gpu03": None, "login1": None}),
        ("a\nb\n", {"a": None, "b": None}),
        ("gpu[1-2] gpu:a100:4(S:0-1)\n", {"gpu1": 4, "gpu2": 4}),
        (SCONTROL, {"g1": 8, "g2": None}),
        ("NodeName=DEFAULT CPUs=8\nNodeName=g[1-2] Gres=gpu:2,gpu:2\n", {"g1": 4, "g2": 4}),
    ],
)
def test_slurm_lists(text: str, expected: dict[str, int | None]) -> None:
    """Folded lists, one name a line, gres beside them, scontrol and slurm.conf records."""
    assert gpus(parse_slurm(text, "s")) == expected


def test_slurm_sinfo_table() -> None:
    """The header says what the columns are; partitions are groups; bad states are mentioned."""
    text = (
        "PARTITION AVAIL TIMELIMIT NODES STATE GRES NODELIST\n"
        "gpu* up infinite 2 idle gpu:h100:8 gpu[1-2]\n"
        "all up infinite 3 down* (null) cpu1,gpu[1-2]\n"
    )
    imported = parse_slurm(text, "s")
    cluster = loaded(imported)

    assert cluster.node("gpu1").gpus == GpuSpec(count=8, type="h100")
    assert cluster.groups == {"gpu": ("gpu1", "gpu2"), "all": ("gpu1", "gpu2", "cpu1")}
    assert imported.warnings == ("s:3: cpu1,gpu[1-2] is down*",)


def test_a_field_that_an_inventory_refuses_is_left_out() -> None:
    """A user that could be taken for an option does not travel on."""
    imported = parse_ansible("a ansible_user=-oProxyCommand=x ansible_port=22\n", "h")

    assert loaded(imported).node("a").ssh == SshEndpoint(host="a", port=22)
    assert imported.warnings == ("h: user '-oProxyCommand=x' of a is left out",)


def test_neighbours_that_are_alike_are_folded() -> None:
    """The text stays short, and the order of the nodes is that of the file."""
    text = render(parse_slurm("n[01-64]\nz\nm\n", "s"), "new", "a test")

    assert text.count("- name:") == 3
    assert [n.name for n in load_cluster(text, "x").nodes][-2:] == ["z", "m"]


def test_the_origin_cannot_add_lines() -> None:
    """A file name with a line break stays inside the comment."""
    text = render(parse_hostfile("a\n", "h"), "new", "x\nname: evil")

    assert load_cluster(text, "x").name == "new"


Parser = Callable[[str, str], Imported]
PARSERS: list[Parser] = [
    parse_hostfile,
    parse_slurm,
    parse_ansible,
    lambda text, source: parse_ssh_config(text, source, lambda _: []),
]
WORDS = st.sampled_from(
    "a b1 -x n[1-3] w[1:3] [g] [g:vars] [g:children] = : slots=8 gpu:4 Host Include NodeName=q "
    "NODELIST ansible_user=é ansible_port=0 ' \" # @ x@y \u2028".split(" ")
)


@pytest.mark.parametrize("parser", PARSERS, ids=["hostfile", "slurm", "ansible", "ssh_config"])
@given(lines=st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=8))
def test_any_file_gives_a_valid_inventory_or_is_refused(parser: Parser, lines: list[str]) -> None:
    """Whatever the lines hold: what an importer accepts, the loader accepts."""
    try:
        imported = parser("\n".join(lines), "h")
    except UsageError:
        return
    assert len(loaded(imported).nodes) == len(imported.nodes)


@pytest.mark.parametrize("parser", PARSERS, ids=["hostfile", "slurm", "ansible", "ssh_config"])
def test_a_file_without_hosts_is_refused(parser: Parser) -> None:
    """An empty inventory would only fail later."""
    with pytest.raises(UsageError, match="no host found"):
        parser("# nothing\n", "h")
