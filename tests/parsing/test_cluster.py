"""Inventories: what they say, what they may not say, and where the error is."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.core.base.command import Secret
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import (
    Cluster,
    GpuSpec,
    PythonKind,
    PythonSpec,
    Role,
    SshEndpoint,
    TransportKind,
)
from orchestrator.parsing.inputs.inventory_file import load_cluster

MINIMAL = "name: c\nnodes: [n]\n"


def load(text: str, environ: dict[str, str] | None = None) -> Cluster:
    return load_cluster(text, "dir/c.yaml", environ=environ)


def refusal(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load(text, environ)
    return str(caught.value)


@pytest.mark.parametrize(
    "written,host",
    [
        ("2001:db8::12", "2001:db8::12"),
        ("[2001:db8::12]", "2001:db8::12"),
        ("::1", "::1"),
        ("fe80::1:22", "fe80::1:22"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
    ],
)
def test_ipv6_addresses_with_and_without_brackets(written: str, host: str) -> None:
    """Brackets around an address are no folded set."""
    cluster = load(f"name: c\nnodes: [{{name: a, ssh: '{written}'}}]\n")
    assert cluster.nodes[0].ssh.host == host


def test_a_user_of_a_domain() -> None:
    """As directories of Windows name them."""
    cluster = load("name: c\nnodes: [{name: a, user: 'LAB\\bob'}]\n")
    assert cluster.nodes[0].ssh.user == "LAB\\bob"


def test_a_name_is_enough() -> None:
    """The smallest inventory: the name is the SSH alias, the rest is default."""
    node = load(MINIMAL).nodes[0]

    assert node.ssh == SshEndpoint(host="n")
    assert (node.role, node.transport) == (Role.WORKER, TransportKind.ASYNCSSH)
    assert node.gpus == GpuSpec()
    assert node.python == PythonSpec()


def test_a_node_overrides_the_defaults_and_maps_merge() -> None:
    """Scalars and lists replace; gpus, env and python's base merge key by key."""
    cluster = load(
        """
name: c
defaults:
  user: bob
  port: 2200
  gpus: {count: 8, type: H100}
  env: {A: 1, B: low}
  python: {conda: llm, base: python3.12}
  groups: [all]
nodes:
  - name: n1
    port: 22
    gpus: {indices: [3, 1]}
    env: {B: high}
    python: {venv: /opt/v}
    groups: [odd]
  - n2
"""
    )
    one, two = cluster.nodes

    assert (one.ssh.user, one.ssh.port, two.ssh.port) == ("bob", 22, 2200)
    assert one.gpus == GpuSpec(count=8, type="H100", indices=(1, 3))
    assert one.env == {"A": "1", "B": "high"}
    assert one.python == PythonSpec(kind=PythonKind.VENV, value="/opt/v", base="python3.12")
    assert two.python == PythonSpec(kind=PythonKind.CONDA, value="llm", base="python3.12")
    assert cluster.groups == {"odd": ("n1",), "all": ("n2",)}


def test_folded_names_and_hosts_go_in_step() -> None:
    """Names and SSH hosts unfold together, in file order."""
    cluster = load("name: c\nnodes:\n- {name: 'g[1-2]', ssh: 'rack-[07-08].lan'}\n- a[1-2]\n")

    assert [(node.name, node.ssh.host) for node in cluster.nodes] == [
        ("g1", "rack-07.lan"),
        ("g2", "rack-08.lan"),
        ("a1", "a1"),
        ("a2", "a2"),
    ]


def test_files_are_relative_to_the_inventory() -> None:
    """Only `~` and absolute paths stand on their own; paths on the node are not touched."""
    text = """
name: c
nodes:
  - {name: a, key: keys/id, known_hosts: ~/.ssh/known, ssh_config: /etc/c, workdir: ~/w}
  - {name: b, python: {requirements: r.txt}}
"""
    one, two = load(text, {"HOME": "/me"}).nodes

    assert one.ssh.identity_file == "dir/keys/id"
    assert one.ssh.known_hosts == "/me/.ssh/known"
    assert one.ssh.ssh_config == "/etc/c"
    assert one.workdir == "~/w"
    assert two.python == PythonSpec(kind=PythonKind.REQUIREMENTS, value="dir/r.txt")


def test_secrets_come_from_the_environment() -> None:
    """The value is a secret from the first moment; a missing one is named with its place."""
    text = "name: c\nnodes:\n  - name: n\n    env: {TOKEN: {secret: MY_TOKEN}}\n"

    assert load(text, {"MY_TOKEN": "hush"}).nodes[0].env == {"TOKEN": Secret("hush")}
    assert "hush" not in repr(load(text, {"MY_TOKEN": "hush"}))
    missing = refusal(text, {})
    assert "dir/c.yaml:4:18: the secret for TOKEN is missing: $MY_TOKEN is not set" in missing
    assert "export MY_TOKEN=" in missing


def test_groups_hold_what_nodes_and_the_file_say() -> None:
    """Both ways of grouping end in the same place."""
    cluster = load(
        "name: c\nnodes: ['n[1-3]', {name: x, groups: [odd]}]\ngroups: {odd: 'n[1,3]', all: n2}\n"
    )

    assert cluster.groups == {"odd": ("n1", "n3", "x"), "all": ("n2",)}
    assert cluster.node("n3").groups == ("odd",)


@pytest.mark.parametrize(
    "text,expected",
    [
        ("", "1:1: the file is empty"),
        ("- a", "1:1: expected a mapping, found a list"),
        ("name: c", "1:1: key 'nodes' is missing"),
        ("name: c\nnodes: []", "2:8: nodes: needs at least 1, has 0"),
        ("name: c\nnodes: a", "2:8: nodes: expected a list, found the text 'a'"),
        (
            "name: 3\nnodes: [a]",
            "1:7: name: expected text, found the number 3\n  next: put it in qu",
        ),
        (MINIMAL + "sumary: x", "3:1: unknown key 'sumary'\n  next: did you mean 'summary'?"),
        (MINIMAL + "min_nodes: yes", "3:12: min_nodes: expected a whole number, found the text"),
        (MINIMAL + "min_nodes: 2", "3:12: min_nodes: 2, but there is 1 worker"),
        (MINIMAL + "currency: euro", "3:11: currency: "),
        (MINIMAL + "groups: {g: m}", "3:13: group g names the unknown node 'm'"),
        (MINIMAL + "groups: {'a b': n}", "3:10: groups.a b: not a plain name"),
        ("name: c\nnodes: [a, a]", "2:12: node 'a' is declared twice"),
        ("name: c\nnodes: ['a[1-2']", "2:9: nodes[0].name: not a node name"),
        ("name: c\nnodes: ['a[1-20000]']", "more than 10000 names"),
        ("name: c\nnodes: [-oProxyCommand=x]", "2:9: nodes[0].name: not a node name"),
        ("name: c\nnodes: [{name: a, role: coordinator}]", "no node has the role worker"),
        ("name: c\nnodes: [{name: 'a[1-2]', ssh: b}]", "ssh stands for 1 hosts, the name for 2"),
    ],
)
def test_mistakes_are_shown_where_they_are(text: str, expected: str) -> None:
    """file:line:column, what is wrong, and the nearest valid key."""
    message = refusal(text)

    assert message.startswith("dir/c.yaml:")
    assert expected in message


@pytest.mark.parametrize(
    "field,expected",
    [
        ("ssh: -oProxyCommand=id", "not a host name or SSH alias"),
        ("ssh: 'a b'", "not a host name or SSH alias"),
        ('ssh: "a\\tb"', "not a host name or SSH alias"),
        ("ssh: 'x;id'", "not a host name or SSH alias"),
        ("ssh: '192.0.2.9:2222'", "write ssh: 192.0.2.9, port: 2222"),
        ("ssh: 'node-b:2222'", "write ssh: node-b, port: 2222"),
        ("ssh: 'abcd:22'", "write ssh: abcd, port: 22"),
        ("ssh: 'node-b:'", "write ssh: node-b, port: NUMBER"),
        ("ssh: 'rack-[1-2]:22'", "write ssh: 'rack-[1-2]', port: 22"),
        ("ssh: '[2001:db8::12]:22'", "write ssh: '2001:db8::12', port: 22"),
        ("ssh: '[node.lab]:22'", "write ssh: node.lab, port: 22"),
        ("ssh: 'b:99999'", "write ssh: b, port: NUMBER"),
        ("ssh: 'a b@c'", "write ssh: c, user: NAME"),
        ("ssh: 'a@'", "not a host name or SSH alias: ''"),
        ("ssh: 'a:b:c'", "neither a host name nor an IPv6 address"),
        ("ssh: '2001:db8::[1-4]'", "neither a host name nor an IPv6 address"),
        ("ssh: 'root@192.0.2.9'", "write ssh: 192.0.2.9, user: root"),
        ("ssh: 'ssh://root@192.0.2.9'", "not a URI"),
        ("user: -l", "not a user name"),
        ("user: 'a b'", "not a user name"),
        ("user: 'LAB\\'", "not a user name"),
        ("jump: -x", "not a jump host"),
        ("jump: 'a b'", "not a jump host"),
        ("port: 0", "port: must be greater than or equal to 1, found the number 0"),
        ("port: '22'", "port: expected a whole number, found the text '22'"),
        ("port: 22:22", "port: expected a whole number, found the text '22:22'"),
        ("key: -rf", "not a path"),
        ('key: "a\\nb"', "control character"),
        ("workdir: relative", "must start with /, ~/ or $NAME"),
        ("workdir: $SCRATCH$(id)/x", "only $NAME and ${NAME} are expanded"),
        ("workdir: '/a/${X:-y}'", "only $NAME and ${NAME} are expanded"),
        ("workdir: /a/$$", "only $NAME and ${NAME} are expanded"),
        ("python: $HOME/$(x)/python", "only $NAME and ${NAME} are expanded"),
        ("python: {base: $HOME/bin/python3}", "variables are not expanded here"),
        ("python: {requirements: '${LAB}/r.txt'}", "variables are not expanded here"),
        ("key: $HOME/.ssh/id", "variables are not expanded here"),
        ("transport: telnet", "is not one of asyncssh, paramiko, openssh, auto, local"),
        ("gpus: yes", "gpus: expected a mapping, found the text 'yes'"),
        ("gpus: -1", "gpus.count: must be greater than or equal to 0"),
        ("gpus: {cout: 2}", "unknown key 'cout'\n  next: did you mean 'count'?"),
        ("gpus: {count: 2, indices: [2]}", "index 2 does not exist among 2 GPUs"),
        ("gpus: {indices: [1, 1]}", "name a GPU twice"),
        ("python: {venv: a, conda: b}", "give one of venv, conda"),
        ("python: {workload: false}", "python.workload"),
        ("env: {A: true}", "expected text, a whole number or {secret: NAME}, found true; quote it"),
        ("env: {A: 1.50}", "found the number 1.5; quote it"),
        ("env: {A: null}", "found nothing"),
        ("env: {A: {sekret: X}}", "expected {secret: NAME}"),
        ("env: {A-B: x}", "not an environment variable name: 'A-B'"),
        ("price_per_hour: -1", "price_per_hour: must be greater"),
        ("price_per_hour: .inf", "price_per_hour: expected a number"),
        ("groups: 'a'", "groups: expected a list"),
    ],
)
def test_fields_of_a_node_are_checked(field: str, expected: str) -> None:
    """Wrong types, values out of range, and everything that could be taken for an option."""
    message = refusal(f"name: c\nnodes:\n  - name: n\n    {field}\n")

    assert message.startswith("dir/c.yaml:4:")
    assert expected in message


NAMED = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,8}", fullmatch=True)
HOSTS = NAMED | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
USERS = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9._@\\-]{0,8}[a-z0-9])?", fullmatch=True)
PORTS = st.integers(1, 65_535).map(str)


@settings(max_examples=40)
@given(user=st.none() | USERS, host=HOSTS, port=st.none() | PORTS, as_name=st.booleans())
def test_what_a_message_proposes_is_accepted(
    user: str | None, host: str, port: str | None, as_name: bool
) -> None:
    """Fields instead of ``user@host:port``, each understood as it was meant."""
    assume(user is not None or port is not None)
    before = f"{user}@" if user is not None else ""
    behind = f":{port}" if port is not None else ""
    written = json.dumps(f"{before}{host}{behind}")
    message = refusal(
        f"name: c\nnodes: [{written if as_name else f'{{name: n, ssh: {written}}}'}]\n"
    )

    fields = message.partition("write ")[2].strip("{}").replace("name: NAME", "name: n")
    node = load(f"name: c\nnodes: [{{{fields if as_name else f'name: n, {fields}'}}}]\n").nodes[0]

    number = int(port) if port is not None else None
    assert node.ssh == SshEndpoint(host=host.strip("[]"), user=user, port=number)


def test_all_problems_are_shown_together_in_order() -> None:
    """Schema errors, duplicate keys and tags come as one list, by line."""
    message = refusal("name: 3\nnodes: [n]\nnodes: [m]\ncolour: !x 1\n")

    lines = message.splitlines()
    assert lines[0] == "dir/c.yaml: 4 problems"
    assert [line.split(":")[1] for line in lines[1:]] == ["1", "3", "4", "4"]


def test_the_list_of_problems_is_bounded() -> None:
    """Twenty are enough to begin with."""
    message = refusal(MINIMAL + "".join(f"bad{n}: 1\n" for n in range(60)))

    assert "60 problems" in message
    assert len(message.splitlines()) == 22
    assert "... and 40 more" in message


def test_thousands_of_nodes_load_at_once() -> None:
    """Folded inventories of the largest size are read within seconds."""
    cluster = load(
        "name: c\ndefaults: {gpus: 8}\nnodes: ['n[0001-9999]']\ngroups: {g: 'n[0001-9999]'}\n"
    )

    assert len(cluster.workers) == 9999
