"""Host lists of other tools become inventories that load."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import Cluster
from orchestrator.parsing.importers.ansible import parse_ansible
from orchestrator.parsing.importers.foreign_nodes import Imported, render_inventory
from orchestrator.parsing.importers.hostfile import parse_hostfile
from orchestrator.parsing.importers.slurm import parse_slurm
from orchestrator.parsing.importers.ssh_aliases import parse_ssh_config
from orchestrator.parsing.inputs.inventory_file import load_cluster


def loaded(imported: Imported) -> Cluster:
    """The inventory after a round trip through its text."""
    return load_cluster(render_inventory(imported, "new", "a test"), "imported.yaml")


def gpus(imported: Imported) -> dict[str, int | None]:
    return {node.name: node.gpus.count for node in loaded(imported).nodes}


def no_include(pattern: str) -> Iterator[tuple[str, str]]:
    raise AssertionError(f"nothing includes {pattern}")


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
    imported = parse_ssh_config(text, "config", no_include, skip_unknown=True)
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
        ("Host a\n  ProxyCommand ssh -W %h:%p me@gate\nHost gate", ["a"]),
        ("Host a\n  ProxyCommand=ssh -q gate nc %h %p 2>/dev/null\nHost gate", ["a"]),
        ("Host a\n  ProxyCommand ssh -p x -W %h:%p gate\nHost gate", ["a", "gate"]),
        ("Host a\n  ProxyCommand nc -x gate:1080 %h %p\nHost gate", ["a", "gate"]),
    ],
)
def test_ssh_config_forms(line: str, names: list[str]) -> None:
    """Every way to write a list of aliases; a name with a hash inside is no host name."""
    found, warnings = names_and_warnings(f"{line}\n")

    assert found == [name for name in names if "#" not in name]
    assert ("not a host name; left out" in warnings) == any("#" in name for name in names)


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


def test_neighbours_that_are_alike_are_folded() -> None:
    """The text stays short, and the order of the nodes is that of the file."""
    text = render_inventory(parse_slurm("n[01-64]\nz\nm\n", "s"), "new", "a test")

    assert text.count("- name:") == 3
    assert [n.name for n in load_cluster(text, "x").nodes][-2:] == ["z", "m"]


def test_the_origin_cannot_add_lines() -> None:
    """A file name with a line break stays inside the comment."""
    text = render_inventory(parse_hostfile("a\n", "h"), "new", "x\nname: evil")

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
