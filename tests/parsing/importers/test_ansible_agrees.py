"""Ansible inventories beside ansible-core: the same hosts, variables and way to each host.

The inventories are generated, in each of the forms that Ansible reads, with groups in groups,
``group_vars`` and ``host_vars``. What ssh is given is read by ``ssh -G``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.store.foreign_files import vars_files
from orchestrator.parsing.importers.ansible import (
    Surroundings,
    parse_ansible,
    read_inventory,
    resolve_variables,
)
from orchestrator.parsing.importers.ansible.yaml_form import read_mapping
from orchestrator.parsing.importers.foreign_nodes import Collector, render
from orchestrator.parsing.inputs.cluster import load_cluster
from tests.parsing.importers.owners import Ansible, ssh_settings

EXAMPLES = 300
FORMS = ["ini", "yaml", "json"]
GROUPS = ["alpha", "beta", "gamma", "zeta", "a_1", "Beta"]
HOSTS = [
    "n1",
    "n2",
    "n[1:3]",
    "m[08:11:2]",
    "x.lan",
    "db[a:c]",
    "192.0.2.9",
    "h1:2200",
    "r[1:2]s[1:2]",
]
COUNT = itertools.count()


@pytest.fixture(scope="module")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ansible]:
    oracle = Ansible(tmp_path_factory.mktemp("ansible"))
    yield oracle
    oracle.close()


WORDS = st.sampled_from(
    [
        "bob",
        "yes",
        "no",
        "08",
        "010",
        "1e3",
        "12:30",
        "True",
        "None",
        "2222",
        "a b",
        "rack#4",
        "x=y",
    ]
    + ["[1, 2]", "{'a': 1}", "é", "it's", 'say "x"', "0x1F", "1_000", "~", "null", "on", "3.50", ""]
)
USERS = st.sampled_from(["amy", "bob", "zoe"])
PORTS = st.sampled_from([22, 2222, 2200])
ADDRESSES = st.sampled_from(
    ["192.0.2.7", "gw.lab", "{{ inventory_hostname }}.lab", "eve@192.0.2.8"]
)
KEYS = st.sampled_from(["/k/a", "/k/b", "{{ site_keys }}/c"])
ARGUMENTS = st.sampled_from(
    ["-o Port=2022", "-p 2023", "-p2024 -l ann", "-C -qp 2025", "-i /k/d -i /k/e", "-J ops@bastion"]
    + ["-o ProxyJump=b1,b2", "-o 'ProxyJump bastion'", "-oUser=ann", "-J a:2200 -o User=zed", ""]
    + ["-o ControlMaster=no -o ConnectTimeout=5", "-o HostName=192.0.2.77", "-o IdentityFile=/k/f"]
)
VARIABLES = st.fixed_dictionaries(
    {},
    optional={
        "ansible_user": USERS,
        "ansible_ssh_user": USERS,
        "ansible_port": PORTS,
        "ansible_ssh_port": PORTS,
        "ansible_host": ADDRESSES,
        "ansible_ssh_host": ADDRESSES,
        "ansible_private_key_file": KEYS,
        "ansible_ssh_private_key_file": KEYS,
        "ansible_ssh_args": ARGUMENTS,
        "ansible_ssh_common_args": ARGUMENTS,
        "ansible_ssh_extra_args": ARGUMENTS,
        "rack": WORDS,
        "note": WORDS,
    },
)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """Groups with hosts, children (the later names, so that there is no circle) and variables."""
    names = draw(st.lists(st.sampled_from(GROUPS), min_size=1, max_size=5, unique=True))
    groups: dict[str, Any] = {}
    for at, name in enumerate(names):
        later = names[at + 1 :]
        groups[name] = {
            "hosts": {
                host: draw(VARIABLES)
                for host in draw(st.lists(st.sampled_from(HOSTS), max_size=3, unique=True))
            },
            "children": draw(st.lists(st.sampled_from(later), unique=True)) if later else [],
            "vars": draw(VARIABLES),
        }
        if draw(st.integers(0, 3)) == 0:
            groups[name]["vars"]["ansible_group_priority"] = draw(st.integers(0, 3))
    return {
        "groups": groups,
        "loose": draw(st.dictionaries(st.sampled_from(HOSTS), VARIABLES, max_size=2)),
        "all": draw(VARIABLES) | {"site_keys": "/site"},
        "group_vars": draw(
            st.dictionaries(st.sampled_from([*names, "all", "ungrouped"]), VARIABLES)
        ),
        "host_vars": draw(
            st.dictionaries(st.sampled_from(["n1", "n3", "x.lan", "dbb"]), VARIABLES)
        ),
    }


def as_ini(tree: dict[str, Any]) -> str:
    lines = [host_line(host, variables) for host, variables in tree["loose"].items()]
    for name, group in tree["groups"].items():
        lines += [f"[{name}]", *(host_line(host, own) for host, own in group["hosts"].items())]
        if group["children"]:
            lines += [f"[{name}:children]", *group["children"]]
        lines += vars_section(name, group["vars"])
    return "\n".join([*lines, *vars_section("all", tree["all"])]) + "\n"


def vars_section(name: str, variables: dict[str, Any]) -> list[str]:
    lines = [f"{key} = {value}" for key, value in variables.items()]
    return [f"[{name}:vars]", *lines] if lines else []


def host_line(host: str, variables: dict[str, Any]) -> str:
    return " ".join([host, *(f"{key}={quoted(str(value))}" for key, value in variables.items())])


def quoted(value: str) -> str:
    """Sometimes in quotes: what ends at a blank or at ``#`` without them is as valid."""
    if any(sign in value for sign in "'\" {") or len(value) % 2:
        return "'" + value.replace("'", "'\"'\"'") + "'"
    return value


def as_mapping(tree: dict[str, Any]) -> dict[str, Any]:
    groups = {
        name: {
            "hosts": dict(group["hosts"]),
            "children": dict.fromkeys(group["children"]),
            "vars": group["vars"],
        }
        for name, group in tree["groups"].items()
    }
    return {**groups, "all": {"hosts": dict(tree["loose"]), "vars": tree["all"]}}


def as_yaml(data: object, indent: int = 0) -> str:
    """Plain words where that is valid, so that what they mean is put to the test."""
    if not isinstance(data, dict):
        plain = isinstance(data, str) and data[:1].isalnum() and not set(data) & set("#:'\"{[")
        return str(data) if plain or data in ("12:30", "~", "") else json.dumps(data)
    if not data:
        return "{}"
    lines = []
    for key, value in data.items():
        text = as_yaml(value, indent + 2)
        lines.append(" " * indent + f"{json.dumps(key)}: {text}")
    return "\n" + "\n".join(lines)


def write(tree: dict[str, Any], form: str, top: Path) -> Path:
    folder = top / f"i{next(COUNT)}"
    folder.mkdir()
    texts = {
        "ini": lambda: as_ini(tree),
        "yaml": lambda: "---" + as_yaml(as_mapping(tree)) + "\n",
        "json": lambda: json.dumps(as_mapping(tree)),
    }
    (folder / "hosts").write_text(texts[form]())
    for kind, suffix in (("group_vars", ".yml"), ("host_vars", "")):
        (folder / kind).mkdir()
        for name, variables in tree[kind].items():
            text = as_yaml(variables) if variables else ""
            (folder / kind / f"{name}{suffix}").write_text(f"---{text}\n" if text else "")
    return folder / "hosts"


def surroundings(path: Path) -> Surroundings:
    return Surroundings(
        base="/work-folder",
        file=str(path),
        find_vars=lambda kind, name: vars_files(path.parent / kind, name),
    )


@pytest.mark.parametrize("form", FORMS)
def test_generated_inventories_mean_the_same(ansible: Ansible, form: str, tmp_path: Path) -> None:
    """Hosts in order, groups, variables, and how ssh is started, in 300 inventories of each form."""

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(trees())
    def agree(tree: dict[str, Any]) -> None:
        check(ansible, write(tree, form, tmp_path))

    agree()


def check(ansible: Ansible, path: Path) -> None:
    theirs = ansible.hosts(path)
    text = path.read_text()
    found = Collector("hosts")
    inventory = read_inventory(text, found)
    files = surroundings(path).find_vars
    ours = list(
        resolve_variables(
            inventory,
            lambda kind, name: [read_mapping(t, f).data for f, t in files(kind, name)],
        )
    )
    assert [name for name, _, _ in ours] == [host.name for host in theirs], text
    for (_, groups, variables), host in zip(ours, theirs, strict=True):
        assert set(groups) - {"ungrouped"} == host.groups, text
        assert json.loads(json.dumps(variables, default=str)) == dict(host.variables), text
    if theirs:
        check_ways(theirs, path)


def check_ways(hosts: list[Any], path: Path) -> None:
    imported = parse_ansible(path.read_text(), "hosts", surroundings(path))
    cluster = load_cluster(render(imported, "new", "a test"), "new.yaml")
    for host in hosts:
        assert host.argv is not None
        said = ssh_settings((*host.argv, host.argv[-1])[: len(host.argv)])
        ssh = cluster.node(host.name).ssh
        expected = ssh_settings(("ssh", *ssh.argv))
        for keyword in ("hostname", "user", "port", "proxyjump"):
            assert said.get(keyword) == expected.get(keyword), (host.argv, ssh, path.read_text())
        if ssh.identity_file:
            assert said["identityfile"][0] == ssh.identity_file
