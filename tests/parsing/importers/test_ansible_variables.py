"""Ansible's variables of a connection: those that its plugins document, and their jump hosts."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.ansible import parse_ansible
from orchestrator.parsing.importers.ansible.plugins import PARAMIKO, SSH, is_dropped
from tests.parsing.importers.reading import loaded, routes

# A setting for servers older than any that can be a node.
TOLD_AS_DROPPED = {"ansible_paramiko_use_rsa_sha2_algorithms"}
PLUGINS = {
    "ssh": (SSH, "host"),
    "paramiko_ssh": (PARAMIKO, "remote_addr"),
}


def documented_options(name: str) -> dict[str, tuple[str, ...]]:
    """Option -> variables that set it, the last of which counts, as the installed plugin says."""
    spec = importlib.util.find_spec("ansible")
    assert spec is not None
    (package,) = spec.submodule_search_locations or ()
    module = ast.parse((Path(package) / "plugins" / "connection" / f"{name}.py").read_text())
    texts = [
        node.value.value
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and getattr(node.targets[0], "id", "") == "DOCUMENTATION"
    ]
    options: dict[str, dict[str, Any]] = yaml.safe_load(texts[0])["options"]
    return {
        option: tuple(
            variable["name"]
            for variable in content.get("vars", ())
            if variable["name"].startswith("ansible_")
        )
        for option, content in options.items()
    }


@pytest.mark.parametrize("name", PLUGINS)
def test_variables_are_those_that_the_plugin_documents(name: str) -> None:
    """In its order; each other one is without effect here, or its loss is told."""
    plugin, host = PLUGINS[name]
    options = documented_options(name)

    assert plugin.host == options[host]
    assert plugin.user == options["remote_user"]
    assert plugin.port == options["port"]
    assert plugin.key == options["private_key_file"]
    assert plugin.proxy == options.get("proxy_command", ())
    known = {variable for variables in options.values() for variable in variables}
    assert {variable for variable in known if is_dropped(variable, plugin)} <= TOLD_AS_DROPPED


@pytest.mark.parametrize(
    "text,route",
    [
        ("ansible_paramiko_proxy_command='ssh -W %h:%p ops@gate'", "g via ops@gate"),
        ("ansible_paramiko_port=2222 ansible_port=22", "g:2222"),
        ("ansible_ssh_host=192.0.2.1 ansible_paramiko_host=192.0.2.2", "192.0.2.2"),
        (
            "ansible_paramiko_user=amy ansible_paramiko_private_key_file=/k ansible_user=bob",
            "amy@g key=/k",
        ),
    ],
)
def test_paramiko_has_variables_of_its_own(text: str, route: str) -> None:
    """They count over those that it shares with ssh."""
    imported = parse_ansible(f"g ansible_connection=paramiko {text}\n", "h")

    assert routes(loaded(imported)) == {"g": route}
    assert imported.warnings == ()


@pytest.mark.parametrize(
    "text,dropped",
    [
        ("ansible_connection=paramiko ansible_ssh_common_args=-Jgate", "ansible_ssh_common_args"),
        ("ansible_paramiko_port=2222", "ansible_paramiko_port"),
        ("ansible_hots=192.0.2.9", "ansible_hots"),
        ("ansible_connection=local ansible_become=yes", ""),
        ("ansible_pipelining=yes ansible_ssh_retries=3 ansible_host=''", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_named(text: str, dropped: str) -> None:
    """One for another connection, or one that is misspelt; nothing is said of the harmless."""
    warnings = parse_ansible(f"g {text}\n", "h").warnings

    told = [f"h: variables of Ansible that are not taken: {dropped}"] if dropped else []
    assert list(warnings) == told


@pytest.mark.parametrize(
    "command,route",
    [
        ("exec ssh -W %h:%p gate 2>/dev/null", "bob@g:2222 via gate"),
        ("ssh gate nc -w 5 %h %p 2> /dev/null", "bob@g:2222 via gate"),
        ("ssh -W %h:%p %r@gate-%n-%p", "bob@g:2222 via bob@gate-g-2222"),
        ("ssh -W %h:%p gate || ssh -W %h:%p other", "bob@g:2222"),
        ("ssh -W %h:%p gate | tee log", "bob@g:2222"),
    ],
)
def test_a_proxy_command_is_a_line_of_shell(command: str, route: str) -> None:
    """What stands around the call of ssh is looked at; ssh's tokens are filled in."""
    arguments = f"""'-o ProxyCommand="{command}"'"""
    imported = parse_ansible(
        f"g ansible_user=bob ansible_port=2222 ansible_ssh_common_args={arguments}\n", "h"
    )

    assert routes(loaded(imported)) == {"g": route}
    assert bool(imported.warnings) == ("via" not in route)


def test_no_ssh_config_at_all_stays_none() -> None:
    """``none`` is no name of a file for ``ssh -F``, nor for the inventory."""
    node = loaded(parse_ansible("g ansible_ssh_common_args='-F none'\n", "h")).node("g")
    assert node.ssh.ssh_config == "none"


def test_a_jump_host_for_an_unknown_user_is_not_guessed() -> None:
    with pytest.raises(UsageError, match="for %r, the user: give ansible_user"):
        parse_ansible("g ansible_ssh_common_args='-J %r@gate'\n", "h")


def test_a_group_that_is_a_list_stops_the_import() -> None:
    """Ansible drops it with a warning, and its hosts with it."""
    with pytest.raises(UsageError, match="with its hosts below 'hosts:'"):
        parse_ansible("one:\n  hosts:\n    a:\ntwo:\n  - b\n", "h")


@pytest.mark.parametrize(
    "template,host",
    [
        ("{{ site.gate }}", "g.lab"),
        ("{{ site['gate'] }}", "g.lab"),
        ('{{ site["hops"][1] }}', "h2"),
        ("{{ addresses[inventory_hostname] }}", "192.0.2.7"),
        ("{{ nope | default('d.lab') }}", "d.lab"),
        ("{{ nope|default(fallback) }}", "f.lab"),
        ("{{ site.nope | d('d.lab') }}", "d.lab"),
        ("{{ fallback | default('d.lab') }}", "f.lab"),
        ("{{ nope | default('a') }}.{{ site.zone }}", "a.lab"),
    ],
)
def test_templates_of_names_keys_and_defaults(template: str, host: str) -> None:
    """What the inventory alone decides; ansible-core 2.19 says the same of each."""
    own = {
        "site": {"gate": "g.lab", "hops": ["h1", "h2"], "zone": "lab"},
        "addresses": {"n1": "192.0.2.7"},
        "fallback": "f.lab",
        "ansible_host": template,
    }
    text = yaml.safe_dump({"all": {"hosts": {"n1": own}}})

    assert routes(loaded(parse_ansible(text, "h"))) == {"n1": host}


@pytest.mark.parametrize(
    "template",
    [
        "{{ nope }}",
        "{{ site.keys }}",
        "{{ site.gate | upper }}",
        "{{ nope.x | default(y) }}",
        "{{ a b }}",
    ],
)
def test_templates_that_only_ansible_can_work_out(template: str) -> None:
    text = yaml.safe_dump(
        {"all": {"hosts": {"n1": {"site": {"gate": "g"}, "ansible_host": template}}}}
    )

    with pytest.raises(UsageError, match="only Ansible can work out"):
        parse_ansible(text, "h")
