"""Ansible inventories made at random, the same for the same seed: valid in each of the forms."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GROUPS = ("alpha", "beta", "gamma", "zeta", "a_1", "Beta")
HOSTS = (
    *("n1", "n2", "n[1:3]", "m[08:11:2]", "x.lan", "db[a:c]", "192.0.2.9", "h1:2200"),
    *("r[1:2]s[1:2]", "n[1:9:4]:2201", "fe80::1", "[2001:db8::1]:2222", "u_1"),
)
WORDS = (
    *("bob", "yes", "no", "08", "010", "1e3", "12:30", "True", "None", "2222", "a b", "rack#4"),
    *("x=y", "[1, 2]", "{'a': 1}", "é", "it's", 'say "x"', "0x1F", "1_000", "~", "null", "on"),
    *("3.50", "", "-1", "+5", "0b11", "0o17", "1:2:3", ".5", "1.", "Yes", "OFF", "a # b"),
)
USERS = ("amy", "bob", "zoe")
PORTS = (22, 2222, 2200)
ADDRESSES = (
    "192.0.2.7",
    "gw.lab",
    "{{ inventory_hostname_short }}",
    "eve@192.0.2.8",
    "{{ nope | default('d.lab') }}",
    "{{ sites['gate'] }}",
    "{{ sites.hops[1] }}.lab",
    "{{ sites[inventory_hostname] | d(sites.gate) }}",
)
KEYS = ("/k/a", "/k/b", "{{ site_keys }}/c")
# A key behind -i must exist, or ssh drops it; of the files that every machine has, any will do.
ARGUMENTS = (
    *(
        "-o Port=2022",
        "-p 2023",
        "-p2024 -l ann",
        "-C -qp 2025",
        "-i /etc/passwd -i /etc/group",
        "-Jops@b",
    ),
    *("-o ProxyJump=b1,b2", "-o 'ProxyJump bastion'", "-oUser=ann", "-J a:2200 -o User=zed", ""),
    *("-o ControlMaster=no -o ConnectTimeout=5", "-o HostName=192.0.2.77", "-oIdentityFile=/k/f"),
    *("-o port=2026 -o PORT=2027", "-o 'User = ann'", '-o User="ann"', "-Cvp2028 -4"),
)
CHOICES: dict[str, Sequence[object]] = {
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
}

Tree = dict[str, Any]


def make_tree(chance: random.Random) -> Tree:
    """Groups with hosts, children (later ones, so that there is no circle), variables, files."""
    names = chance.sample(GROUPS, chance.randint(1, 5))
    groups: dict[str, Any] = {}
    for at, name in enumerate(names):
        later = names[at + 1 :]
        groups[name] = {
            "hosts": hosts(chance, 3),
            "children": chance.sample(later, chance.randint(0, len(later))),
            "vars": variables(chance),
        }
        if chance.random() < 0.3:
            groups[name]["vars"]["ansible_group_priority"] = chance.randint(0, 3)
    files = [*names, "all", "ungrouped"]
    return {
        "groups": groups,
        "loose": hosts(chance, 2),
        "all": {
            **variables(chance),
            "site_keys": "/site",
            "sites": {"gate": "g.lab", "hops": ["h1", "h2"], "n1": "first.lab"},
        },
        "group_vars": {name: variables(chance) for name in chance.sample(files, 2)},
        "host_vars": {name: variables(chance) for name in chance.sample(["n1", "n3", "x.lan"], 1)},
    }


def hosts(chance: random.Random, most: int) -> dict[str, Any]:
    return {name: variables(chance) for name in chance.sample(HOSTS, chance.randint(0, most))}


def variables(chance: random.Random) -> dict[str, Any]:
    names = chance.sample(list(CHOICES), chance.choice((0, 0, 1, 2, 4)))
    return {name: chance.choice(CHOICES[name]) for name in names}


def as_ini(tree: Tree, chance: random.Random) -> str:
    lines = [host_line(host, own, chance) for host, own in tree["loose"].items()]
    sections = []
    for name, group in tree["groups"].items():
        members = [host_line(host, own, chance) for host, own in group["hosts"].items()]
        sections.append([f"[{name}]", "# members", *members])
        if group["children"]:
            sections.append([f"[{name}:children]", *group["children"]])
        sections.append(vars_section(name, group["vars"]))
    sections.append(vars_section("all", tree["all"]))
    chance.shuffle(sections)  # what belongs together may stand anywhere
    return "\n".join([*lines, *(line for section in sections for line in section)]) + "\n"


def vars_section(name: str, own: dict[str, Any]) -> list[str]:
    lines = [f"{key} = {value}" for key, value in own.items()]
    return [f"[{name}:vars]", *lines] if lines else []


def host_line(host: str, own: dict[str, Any], chance: random.Random) -> str:
    words = [f"{key}={quoted(str(value), chance)}" for key, value in own.items()]
    comment = ["# a comment"] if chance.random() < 0.2 else []
    return " ".join([host, *words, *comment])


def quoted(value: str, chance: random.Random) -> str:
    """Quotes only where a blank wants them, or by chance: what ``#`` does without is as valid."""
    if any(sign in value for sign in "'\" {[") or chance.random() < 0.3:
        return "'" + value.replace("'", "'\"'\"'") + "'"
    return value


def as_mapping(tree: Tree) -> dict[str, Any]:
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
    if isinstance(data, dict) and data:
        pairs = (f"{json.dumps(key)}: {as_yaml(own, indent + 2)}" for key, own in data.items())
        return "\n" + "\n".join(" " * indent + pair for pair in pairs)
    plain = isinstance(data, str) and data != "" and not set(data) & set("#'\"{[=\\,")
    if plain and data[:1] not in "!&*?|>%@`-" and ": " not in data:
        return data
    return json.dumps(data)


def write_inventory(folder: Path, form: str, chance: random.Random) -> Path:
    """An inventory and its files of variables in a new ``folder``; the path of the inventory."""
    tree = make_tree(chance)
    texts = {
        "ini": lambda: as_ini(tree, chance),
        "yaml": lambda: "--- " + as_yaml(as_mapping(tree)) + "\n",
        "json": lambda: json.dumps(as_mapping(tree), indent=chance.choice([None, 2])),
    }
    folder.mkdir()
    path = folder / chance.choice(["hosts", "inventory"])
    path.write_text(texts[form]())
    for kind in ("group_vars", "host_vars"):
        for name, own in tree[kind].items():
            suffix = chance.choice(["", ".yml", ".yaml", ".json", "/main.yml"])
            file = folder / kind / f"{name}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(own) if suffix == ".json" else f"--- {as_yaml(own)}\n"
            file.write_text(text)
    return path
