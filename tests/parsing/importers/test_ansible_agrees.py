"""Ansible inventories beside ansible-core: the same hosts, variables and way to each host.

120 inventories of each form that Ansible reads (``GENERATED=300`` makes them more), with groups in
groups, ``group_vars`` and
``host_vars``. What Ansible's ssh is given is read by ``ssh -G``.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.catalog.foreign_files import vars_files
from orchestrator.core.model.inventory import Cluster
from orchestrator.parsing.importers.ansible import (
    Surroundings,
    parse_ansible,
    read_inventory,
    resolve_variables,
)
from orchestrator.parsing.importers.ansible.yaml_form import read_mapping
from orchestrator.parsing.importers.foreign_nodes import Collector, node_name, render_inventory
from orchestrator.parsing.inputs.inventory_file import load_cluster
from tests.parsing.importers.inventories import write_inventory
from tests.parsing.importers.owners import Ansible, AnsibleHost, ssh_settings

pytestmark = pytest.mark.processes
COUNT = int(os.environ.get("GENERATED", "120"))
# The way to a host follows from its variables, whatever the form: fewer are compared elsewhere.
WAYS_OF_EVERY = {"ini": 1, "yaml": 5, "json": 5}
COMPARED = ("hostname", "user", "port", "proxyjump")


@pytest.fixture(scope="module")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ansible]:
    oracle = Ansible(tmp_path_factory.mktemp("ansible"))
    yield oracle
    oracle.close()


@pytest.mark.parametrize("form", WAYS_OF_EVERY)
def test_generated_inventories_mean_the_same(
    ansible: Ansible,
    form: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Hosts in order, groups, variables, and how ssh is started."""
    record_property("inputs", COUNT)
    differences = []
    for seed in range(COUNT):
        path = write_inventory(tmp_path / str(seed), form, random.Random(f"{form} {seed}"))
        theirs = ansible.hosts(path)
        differences += [f"{path}: {what}" for what in compare_variables(path, theirs)]
        if theirs and seed % WAYS_OF_EVERY[form] == 0:
            chosen = theirs[seed % len(theirs)]
            differences += [f"{path}: {what}" for what in compare_way(path, chosen)]

    assert differences == []


def surroundings(path: Path) -> Surroundings:
    return Surroundings(
        base="/work-folder",
        file=str(path),
        find_vars=lambda kind, name: vars_files(path.parent / kind, name),
    )


def compare_variables(path: Path, theirs: list[AnsibleHost]) -> Iterator[str]:
    files = surroundings(path).find_vars
    inventory = read_inventory(path.read_text(), Collector("hosts"))
    ours = {
        host: (set(groups) - {"ungrouped"}, json.loads(json.dumps(variables, default=str)))
        for host, groups, variables in resolve_variables(
            inventory,
            lambda kind, name: [read_mapping(text, file).data for file, text in files(kind, name)],
        )
    }
    if list(ours) != [host.name for host in theirs]:
        yield f"hosts {list(ours)}, not {[host.name for host in theirs]}"
    for host in theirs:
        groups, variables = ours.get(host.name, (set(), {}))
        if groups != host.groups:
            yield f"{host.name}: groups {groups}, not {set(host.groups)}"
        for name in variables.keys() | host.variables.keys():
            if variables.get(name) != host.variables.get(name):
                wrong = f"{variables.get(name)!r}, not {host.variables.get(name)!r}"
                yield f"{host.name}: {name} is {wrong}"


def compare_way(path: Path, host: AnsibleHost) -> Iterator[str]:
    assert host.argv is not None
    said = ssh_settings(host.argv)
    if not said:
        return
    ssh = imported(path).node(node_name(host.name)).ssh
    expected = ssh_settings(("ssh", *ssh.argv))
    for keyword in COMPARED:
        if said.get(keyword) != expected.get(keyword):
            yield f"{host.name}: {keyword} of {ssh}, not {host.argv}"
    if ssh.identity_file and said["identityfile"][0] != ssh.identity_file:
        yield f"{host.name}: key of {ssh}, not {host.argv}"


def imported(path: Path) -> Cluster:
    found = parse_ansible(path.read_text(), "hosts", surroundings(path))
    return load_cluster(render_inventory(found, "new", "a test"), "new.yaml")
