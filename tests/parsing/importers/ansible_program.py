"""Run by a Python that has ansible-core: what Ansible makes of inventories.

One JSON text a line on standard input is the path of an inventory; the answer is a line with a list
of hosts, in order: ``{name, groups, variables, argv}``. ``argv`` is how Ansible would start ssh;
null where it would not.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader, init_plugin_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager


def hosts_of(path: str) -> list[dict[str, Any]]:
    """The hosts of the inventory at ``path``, as ``ansible-inventory`` and ``ansible`` see them."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[path])
    manager = VariableManager(loader=loader, inventory=inventory)
    answers = []
    for host in inventory.hosts.values():
        variables = manager.get_vars(host=host, include_hostvars=False, stage="all")
        answers.append(
            {
                "name": host.name,
                "groups": sorted(group.name for group in host.get_groups()),
                "variables": {key: value for key, value in variables.items() if key not in MAGIC},
                "argv": argv_of(host.name, Templar(loader=loader, variables=variables), variables),
            }
        )
    return answers


def argv_of(name: str, templar: Templar, variables: dict[str, Any]) -> list[str] | None:
    """As the executor of tasks does it: templates first, then the options of the ssh plugin."""
    connection = connection_loader.get("ssh", PlayContext())
    wanted = constants.config.get_plugin_vars("connection", "ssh")
    try:
        options = {key: templar.template(variables[key]) for key in wanted if key in variables}
        connection.set_options(var_options={**options, "inventory_hostname": name})
        host = connection.get_option("host")
        words = connection._build_command("ssh", "ssh", host)
    except (AnsibleError, TypeError, ValueError):
        return None
    return [word.decode() for word in words]


def magic() -> set[str]:
    """What Ansible adds to every host's variables."""
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=["alone,"])
    manager = VariableManager(loader=loader, inventory=inventory)
    return set(manager.get_vars(host=inventory.get_host("alone"), include_hostvars=False))


init_plugin_loader()
MAGIC = magic()
for line in sys.stdin:
    sys.stdout.write(json.dumps(hosts_of(json.loads(line)), default=str) + "\n")
    sys.stdout.flush()
