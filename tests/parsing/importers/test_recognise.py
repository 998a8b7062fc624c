"""A file that is something else is refused with what it is, whatever importer it is given to."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.catalog.foreign_files import read_foreign
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.inputs.inventory_file import load_cluster

FORMATS = ("ansible", "hostfile", "slurm", "ssh-config")
SECRET = "hunter2"

# A file, what it is called, and the formats that read it.
OTHERS = {
    "vault": ("$ANSIBLE_VAULT;1.1;AES256\n61626364\n30313233\n", "encrypted by Ansible Vault", ""),
    "html": (f"<!DOCTYPE html>\n<html><body>{SECRET}</body></html>\n", "an HTML or XML page", ""),
    "html-bare": (f"\n  <HTML><head><title>{SECRET}</title></head>\n", "an HTML or XML page", ""),
    "key": (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n", "a key or certificate", ""),
    "known_hosts": (f"{SECRET} ssh-ed25519 AAAAC3NzaC1l\n", "a file of SSH keys", ""),
    "authorized_keys": (f'command="x y" ssh-rsa AAAAB3Nz {SECRET}\n', "a file of SSH keys", ""),
    "script": (f"#!/bin/sh\necho {SECRET}\n", "a script", ""),
    "playbook": (f"- hosts: all\n  vars: {{p: {SECRET}}}\n  tasks: []\n", "playbook", ""),
    "marked-playbook": (f"---\n# c\n- name: {SECRET}\n  hosts: all\n", "playbook", ""),
    "json": (f'{{"all": {{"hosts": {{"a": {{"x": "{SECRET}"}}}}}}}}', "JSON", "ansible"),
    "json-lines": (
        f'{{\n  "all": {{"hosts": {{"a": {{"x": "{SECRET}"}}}}}}\n}}\n',
        "JSON",
        "ansible",
    ),
    "yaml": (f"all:\n  hosts:\n    a: {{x: {SECRET}}}\n", "YAML", "ansible"),
    "our-own": (f"name: {SECRET}\nnodes: [a]\n", "YAML", "ansible"),
    "toml": (f'[all.hosts.a]\nansible_host = "{SECRET}"\n', "TOML", ""),
    "toml-list": (f'# c\n[gpu]\nhosts = ["{SECRET}"]\n', "TOML", ""),
    "pyproject": (
        f'[project]\nname = "{SECRET}"\ndependencies = [\n  "a>=1",\n]\n[tool.x]\non = true\n',
        "TOML",
        "",
    ),
    "settings": (f"[metadata]\nname = {SECRET}\nrequires =\n  numpy\n", "settings (INI)", ""),
    "unit": (f"[Unit]\nDescription={SECRET}\n[Service]\nExecStart=/x\n", "settings (INI)", ""),
    "git": (f'[remote "origin"]\n\turl = {SECRET}\n', "settings (INI)", ""),
    "error": (f"sinfo: error: {SECRET}\n", "a message of the program", ""),
    "not-found": (f"bash: {SECRET}: command not found\n", "a message of the program", ""),
    "no-slurm": ("slurm_load_node: Unable to contact slurm controller\n", "a message of the", ""),
    "hosts": (f"127.0.0.1 localhost\n::1 ip6-localhost\n192.0.2.1 {SECRET}  # x\n", "hosts(5)", ""),
    "csv": (f"name,ip\ng1,192.0.2.1\n{SECRET},192.0.2.2\n", "CSV", ""),
    "csv-quoted": (f'"Host Name";"IP Address"\n{SECRET};192.0.2.2\n', "CSV", ""),
    "ssh_config": (f"Host a\n  HostName {SECRET}\n", "an ssh_config", "ssh-config"),
    "slurm.conf": (f"ClusterName={SECRET}\nNodeName=a\n", "a configuration of Slurm", "slurm"),
    "ini": (f"[gpu]\na ansible_host={SECRET}\n", "an Ansible inventory", "ansible"),
    "host-lines": (f"a ansible_host={SECRET}\n", "an Ansible inventory", "ansible"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("text,what,readers", OTHERS.values(), ids=OTHERS)
def test_another_kind_of_file_is_refused_by_its_name(
    format: str, text: str, what: str, readers: str, tmp_path: Path
) -> None:
    """Nothing of it is repeated, since it may be private; the next step is named."""
    path = tmp_path / "file"
    path.write_text(text)
    if format == readers:
        return
    with pytest.raises(UsageError) as caught:
        read_foreign(format, str(path), "new")

    assert what in caught.value.what
    assert caught.value.remedy
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "text,why", [("", "empty"), ("\n \n", "empty"), ("# a\n; b\n", "comments")]
)
def test_an_empty_file_is_called_empty(format: str, text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(UsageError, match="no host found") as caught:
        read_foreign(format, str(path), "new")
    assert why in caught.value.why


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_is_called_a_folder(format: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is a folder"):
        read_foreign(format, str(tmp_path), "new")


@pytest.mark.parametrize(
    "format,text",
    [
        ("hostfile", "192.0.2.1 slots=2\n192.0.2.2 slots=2\n"),
        ("hostfile", "[::1]:442\n"),
        ("hostfile", "192.0.2.1\n"),
        ("ansible", "a\n[g]\nb x='y: z'\n"),
        ("ansible", 'a note="k: v"\n'),
        ("ansible", "; words\n# words\na:22\n"),
        ("ansible", "[a:children]\nb\n[b]\nc\n"),
        ("ansible", "[gpu]\na x=1\n[cpu]\nb:22\n"),
        ("ansible", "[gpu:vars]\nansible_user = x\n[gpu]\na\n"),
        ("ansible", "all:\n  hosts:\n    error: {ansible_host: refused.lab}\n"),
        ("slurm", "n1\n192.0.2.1\n"),
        ("slurm", "NODELIST\nn1\n"),
        ("ssh-config", 'Host a\nUser = "bob"\n'),
        ("ssh-config", 'Host=a\nPort="22"\n'),
    ],
)
def test_files_that_look_a_little_like_others_are_read(
    format: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    assert "- name:" in read_foreign(format, str(path), "new").text


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize(
    "format,text",
    [
        ("hostfile", "a slots=2 # words{}b slots=2\nc slots=2\n"),
        ("slurm", "NodeName=a Gres=gpu:2 # words{}NodeName=b\nNodeName=c\n"),
        ("slurm", "a # words{}b\nc\n"),
        ("ansible", "[g]\na # words{}b\nc\n"),
        ("ssh-config", "Host a # words{}Host b\nHost c\n"),
    ],
)
def test_only_line_ends_end_lines(format: str, text: str, end: str, tmp_path: Path) -> None:
    """As for the tools that own the formats: the rest of a comment never becomes a host."""
    path = tmp_path / "file"
    path.write_text(text.format(end), encoding="utf-8")

    inventory = load_cluster(read_foreign(format, str(path), "new").text, "new.yaml")

    assert [node.name for node in inventory.nodes] == ["a", "c"]
