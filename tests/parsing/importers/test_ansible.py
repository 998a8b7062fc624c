"""Ansible inventories: forms, precedence, files beside them, connections, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.catalog.foreign_files import read_foreign
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import SshEndpoint, TransportKind
from orchestrator.parsing.importers.ansible import parse_ansible
from tests.parsing.importers.reading import imported_from, loaded, routes

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


def test_an_ini_inventory() -> None:
    """Ranges, ports, groups of groups; what is not taken is said once for the file."""
    imported = parse_ansible(INI, "hosts.ini")
    cluster = loaded(imported)

    names = ["loose", "gpu01.lan", "gpu02.lan", "gpu03.lan", "x.lan", "m"]
    assert [node.name for node in cluster.nodes] == names
    assert cluster.node("loose").ssh == SshEndpoint(host="192.0.2.4")
    assert cluster.node("gpu02.lan").ssh == SshEndpoint(
        host="gpu02.lan", user="bob", port=2222, jump="bob@jump", identity_file="~/.ssh/id"
    )
    assert (cluster.node("x.lan").ssh.user, cluster.node("x.lan").ssh.port) == ("eve", 2200)
    assert cluster.node("m").transport is TransportKind.LOCAL
    assert cluster.groups["cluster"] == ("gpu01.lan", "gpu02.lan", "gpu03.lan", "x.lan", "m")
    assert cluster.groups["cpu"] == ("m",)
    assert imported.warnings == (
        "hosts.ini: host keys are always checked (StrictHostKeyChecking is not taken)",
        "hosts.ini: variables that mean nothing here: colour",
    )


@pytest.mark.parametrize(
    "text,user",
    [
        ("[one]\ng\n[two]\ng\n[two:vars]\nansible_user=b\n[one:vars]\nansible_user=a\n", "b"),
        ("[two]\ng\n[one]\ng\n[two:vars]\nansible_user=b\n[one:vars]\nansible_user=a\n", "b"),
        (
            (
                "[in]\ng\n[top:children]\nin\n[zoo]\ng\n[in:vars]\nansible_user=deep\n"
                "[zoo:vars]\nansible_user=flat\n"
            ),
            "deep",
        ),
        (
            (
                "[a]\ng\n[b]\ng\n[a:vars]\nansible_user=a\nansible_group_priority=9\n"
                "[b:vars]\nansible_user=b\n"
            ),
            "a",
        ),
        (
            (
                "[in]\ng\n[top:children]\nin\n[zoo]\ng\n[in:vars]\nansible_user=deep\n"
                "[zoo:vars]\nansible_user=flat\nansible_group_priority=9\n"
            ),
            "deep",
        ),
        ("[z]\ng ansible_user=own\n[z:vars]\nansible_user=z\n", "own"),
        ("[z]\ng\n[all:vars]\nansible_user=all\n", "all"),
        ("[z]\ng\n[z:vars]\nansible_user=z\n[all:vars]\nansible_user=all\n", "z"),
        ("[a]\ng\n[b]\ng ansible_user=x\n[c]\ng ansible_user=y\n", "y"),
    ],
    ids=[
        "name",
        "order",
        "depth",
        "priority",
        "depth-first",
        "own",
        "all",
        "over-all",
        "last-line",
    ],
)
def test_which_of_several_values_counts(text: str, user: str) -> None:
    """The deeper group, then the higher priority, then the later name; a host's own over all."""
    assert loaded(parse_ansible(text, "h")).node("g").ssh.user == user


def test_variables_beside_the_inventory_are_read(tmp_path: Path) -> None:
    """host_vars over the host's line, over group_vars, over the section of variables."""
    cluster = imported_from(
        tmp_path,
        "ansible",
        {
            "hosts.ini": "[gpu]\na ansible_port=2201\nb\nc\n"
            "[gpu:vars]\nansible_user=ini\nansible_port=1\n",
            "group_vars/gpu.yml": "ansible_user: ops\nansible_port: 2222\n",
            "group_vars/all/one.yaml": "ansible_private_key_file: /k/all\n",
            "group_vars/all/deeper/two.json": '{"ansible_user": "everybody"}',
            "group_vars/all/.hidden.yml": "ansible_port: 9\n",
            "group_vars/all/old.yml~": "ansible_port: 9\n",
            "group_vars/other.yml": "ansible_port: 9\n",
            "host_vars/a": "ansible_host: 192.0.2.11\nansible_port: 2202\n",
            "host_vars/b.json": '{"ansible_host": "192.0.2.12"}',
        },
    )

    assert routes(cluster) == {
        "a": "ops@192.0.2.11:2202 key=/k/all",
        "b": "ops@192.0.2.12:2222 key=/k/all",
        "c": "ops@c:2222 key=/k/all",
    }


def test_files_of_variables_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """An encrypted file is said; one that is broken stops the import."""
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "hosts").write_text("[gpu]\na\n")
    (tmp_path / "group_vars/gpu.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    (tmp_path / "group_vars/all.yml").write_text("ansible_password: !vault 3132\nrack: 1\n")
    warnings = read_foreign("ansible", str(tmp_path / "hosts"), "new").warnings

    assert any("gpu.yml is encrypted by Ansible Vault" in warning for warning in warnings)
    assert any("passwords are never used" in warning for warning in warnings)

    (tmp_path / "group_vars/gpu.yml").write_text("- a list\n")
    with pytest.raises(UsageError, match=r"gpu\.yml: a mapping is expected"):
        read_foreign("ansible", str(tmp_path / "hosts"), "new")


YAML = """\
all:
  vars: {ansible_user: bob}
  hosts:
    solo: {ansible_host: 192.0.2.4}
  children:
    gpu:
      hosts:
        gpu[1:5:2]: {ansible_port: 2222, ansible_python_interpreter: /usr/bin/python3.12}
      children:
        a100:
          hosts: {q: null}
          vars: {ansible_user: eve}
"""


@pytest.mark.parametrize("source", ["hosts", "hosts.yml", "hosts.ini", "hosts.txt"])
def test_yaml_is_recognised_by_its_content(source: str) -> None:
    """Whatever the file is called."""
    cluster = loaded(parse_ansible(YAML, source))

    assert [node.name for node in cluster.nodes] == ["solo", "gpu1", "gpu3", "gpu5", "q"]
    assert cluster.node("gpu3").ssh.port == 2222
    assert cluster.node("gpu3").python.value == "/usr/bin/python3.12"
    assert cluster.node("q").ssh.user == "eve"
    assert cluster.node("q").groups == ("gpu", "a100")


@pytest.mark.parametrize(
    "text",
    [
        "gpu:\n  hosts:\n    a: {ansible_host: 192.0.2.1}\n",
        "---\n\n# words\ngpu: {hosts: {a: {ansible_host: 192.0.2.1}}}\n",
        "# words\n\n%YAML 1.1\n---\ngpu: {hosts: {a: {ansible_host: 192.0.2.1}}}\n...\n",
        '"gpu":\n  "hosts":\n    "a":\n      "ansible_host": "192.0.2.1"\n',
        '{"gpu": {"hosts": {"a": {"ansible_host": "192.0.2.1"}}}}',
        '\n  {\n\t"gpu":{"hosts":{"a":{"ansible_host":"192.0.2.1"}}}}',
        "all:\n  vars: &v\n    ansible_host: 192.0.2.1\ngpu:\n  hosts:\n    a:\n      <<: *v\n",
        "gpu:\n  hosts: a\n  vars: {ansible_host: 192.0.2.1}\n",
        "gpu:\n  hosts:\n    a:\n    \n  vars:\n    ansible_host: !unsafe 192.0.2.1\n",
        (
            "x: &x {ansible_user: eve, ansible_host: 192.0.2.9}\n"
            "gpu: {hosts: {a: {<<: [{ansible_host: 192.0.2.1}, *x]}}}\n"
        ),
    ],
    ids=[
        "plain",
        "marked",
        "directive",
        "quoted",
        "json",
        "tabs",
        "merge",
        "text",
        "none",
        "merges",
    ],
)
def test_other_beginnings_and_shapes_of_yaml(text: str) -> None:
    cluster = loaded(parse_ansible(text, "hosts"))
    assert {node.name: node.ssh.host for node in cluster.nodes} == {"a": "192.0.2.1"}


def test_a_port_counts_where_the_host_is_named_first() -> None:
    """That is Ansible's rule, and in every form of an address."""
    text = "[a]\nx:2201\n[fe80::1]:2202\n[h.lan]:2203\ny\n192.0.2.1:2204\n[b]\nx:9\ny:9\n"
    cluster = loaded(parse_ansible(text, "h"))

    assert routes(cluster) == {
        "x": "x:2201",
        "fe80--1": "fe80::1:2202",
        "h.lan": "h.lan:2203",
        "y": "y",
        "192.0.2.1": "192.0.2.1:2204",
    }


@pytest.mark.parametrize("first,second", [("ssh_", ""), ("", "ssh_")])
def test_the_older_of_two_names_counts(first: str, second: str) -> None:
    """Wherever it stands, for each setting that has two."""
    values = {"ssh_": "user=o host=192.0.2.1 port=11", "": "user=n host=192.0.2.2 port=22"}
    words = [f"ansible_{name}{word}" for name in (first, second) for word in values[name].split()]
    keys = "ansible_ssh_private_key_file=/k/old ansible_private_key_file=/k/new"
    cluster = loaded(parse_ansible(f"g {' '.join(words)} {keys}\n", "h"))

    assert routes(cluster) == {"g": "o@192.0.2.1:11 key=/k/old"}


@pytest.mark.parametrize("mode", ["auto", "auto_silent", "auto_legacy", "auto_legacy_silent"])
def test_modes_of_the_interpreter_are_no_program(mode: str) -> None:
    """They ask for one to be found, as is done here, too."""
    text = f"g ansible_python_interpreter={mode}\n"
    assert loaded(parse_ansible(text, "h")) == loaded(parse_ansible("g\n", "h"))


@pytest.mark.parametrize(
    "text,route",
    [
        (
            """ansible_ssh_common_args='-o ProxyCommand="ssh -W %h:%p -q ops@gate"'""",
            "g via ops@gate",
        ),
        (
            """ansible_ssh_common_args='-o ProxyCommand="ssh -p 22 -l ops gate nc %h %p"'""",
            "g via ops@gate:22",
        ),
        ("""ansible_ssh_common_args="-o 'ProxyJump gate'" """, "g via gate"),
        ("""ansible_ssh_common_args=-oProxyJump=a,b""", "g via a,b"),
        ("""ansible_ssh_extra_args='-Ja:2200'""", "g via a:2200"),
        ("""ansible_ssh_args='-J ssh://ops@gate:2200'""", "g via ops@gate:2200"),
        ("""ansible_ssh_common_args='-p2222 -lubuntu -i/k/lab'""", "ubuntu@g:2222 key=/k/lab"),
        ("""ansible_port=22 ansible_ssh_common_args='-p 2222'""", "g:22"),
        ("""ansible_port=22 ansible_ssh_args='-qp 2222'""", "g:2222"),
        ("""ansible_ssh_common_args='-o HostName=192.0.2.9 -o User=ops'""", "ops@192.0.2.9"),
        ("""ansible_host="{{ inventory_hostname }}.lab" """, "g.lab"),
        (
            """ansible_host="{{ at }}" at="{{ inventory_hostname_short }}.{{ site }}" site=x""",
            "g.x",
        ),
        ("ansible_host=ops@192.0.2.9", "ops@192.0.2.9"),
        ("ansible_connection=ansible.builtin.ssh ansible_host=192.0.2.9", "192.0.2.9"),
    ],
)
def test_how_a_host_is_reached(text: str, route: str) -> None:
    """Arguments of ssh, apart from or together with their values; templates of known names."""
    imported = parse_ansible(f"g {text}\n", "h")
    assert routes(loaded(imported)) == {"g": route}
    assert not [warning for warning in imported.warnings if "g:" in warning]


def test_files_named_by_ssh_arguments_are_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new inventory may lie elsewhere; relative to where Ansible would be started."""
    monkeypatch.chdir(tmp_path)
    text = (
        "g ansible_ssh_common_args='-F lab -o UserKnownHostsFile=kh' ansible_private_key_file=k\n"
    )
    ssh = imported_from(tmp_path / "inventories", "ansible", {"hosts": text}).node("g").ssh

    folder = str(tmp_path)
    assert (ssh.ssh_config, ssh.identity_file, ssh.known_hosts) == (
        f"{folder}/lab",
        f"{folder}/k",
        f"{folder}/kh",
    )


@pytest.mark.parametrize(
    "text,warning",
    [
        ("ansible_ssh_common_args='-o ProxyCommand=\"corkscrew p 80 %h %p\"'", "dialled directly"),
        (
            "ansible_ssh_common_args='-o ProxyCommand=\"ssh -i k -W %h:%p gate\"'",
            "jump host, not taken: key",
        ),
        ("ansible_ssh_common_args='-o BindAddress=192.0.2.1 -4'", "bindaddress, addressfamily"),
        ("ansible_ssh_common_args='{{ args }}'", "a template that only Ansible can work out"),
        ("ansible_user=\"{{ lookup('env', 'USER') }}\"", "ssh_config decides its user"),
        ("ansible_python_interpreter='{{ py }}'", "python3 is used"),
        ("ansible_python_interpreter='nice python3'", "no single program"),
        ("ansible_ssh_common_args='-i /a -i /b'", "only the first of its keys"),
        ("ansible_ssh_executable=/opt/ssh", "ansible_ssh_executable is not taken"),
    ],
)
def test_what_is_not_taken_is_one_warning_a_host(text: str, warning: str) -> None:
    """It says what that means, and no template is taken literally."""
    imported = parse_ansible(f"g {text}\n", "h")
    (said,) = imported.warnings

    assert said.startswith("h:1: g: ")
    assert warning in said
    assert "{{" not in "".join(routes(loaded(imported)).values())


@pytest.mark.parametrize(
    "connection", ["docker", "winrm", "community.docker.docker", "network_cli"]
)
def test_a_host_of_another_connection_is_left_out(connection: str) -> None:
    imported = parse_ansible(f"a\nb ansible_connection={connection}\n", "h")
    kind = connection.rpartition(".")[2]

    assert list(routes(loaded(imported))) == ["a"]
    assert "b is left out: its connection is" in imported.warnings[0]
    assert kind in imported.warnings[0]


def test_what_a_number_sign_means_depends_on_the_place() -> None:
    """Text in quotes; the end of a host's line, even inside a word; part of a section's value."""
    text = (
        'a note="x # y" ansible_port=2223\nb note=x#y ansible_port=2222\nc ansible_host=c.lab#1\n'
        "[all:vars]\nansible_user = bob # not a comment\n"
    )
    with pytest.raises(UsageError, match="name is not valid"):
        parse_ansible(text, "h")
    imported = parse_ansible(text.replace("ansible_user", "ansible_ssh_private_key_file"), "h")

    assert routes(loaded(imported)) == {
        "a": "a:2223 key=/bob # not a comment",
        "b": "b key=/bob # not a comment",
        "c": "c.lab key=/bob # not a comment",
    }
    assert "in a :vars section it is part of the value" in imported.warnings[0]


@pytest.mark.parametrize(
    "line,reason",
    [
        ("b ansible_port=ssh", "its port is not a number"),
        ("b ansible_user=-oProxyCommand=x", "name is not valid"),
        (
            "b ansible_host=192.0.2.12:2200",
            "the address is not valid: the port has a field of its own",
        ),
        ("b ansible_host='{{ hostvars.a.ip }}'", "a template that only Ansible can work out"),
        ("b ansible_host='{% if x %}y{% endif %}'", "a template that only Ansible can work out"),
        ("b ansible_host='{{ loop }}' loop='{{ loop }}'", "a template that refers to itself"),
        ("b ansible_host=[1,2]", "ansible_host is not a single word"),
        ("b 'open", "quotes that are not closed"),
        ("b slots", "name=value is expected"),
        ("b:", "a colon at the end"),
        ("b[5:1]", "a range runs backwards"),
        ("b[1:99999999]", "more than 10000 names"),
        ("b[1:200]x[1:200]", "more than 10000 names"),
        ("b[a:9]", "two numbers or two letters"),
        ("b[1:9:0]", "the step of a range"),
        ("b[01:9]", "the same width"),
        ("[x y]", "a section is like"),
        ("[x:things]", "a section is hosts, children or vars"),
        ("[x:children]\nnowhere", "declared nowhere"),
        ("[x:vars]\ny=1", "declared nowhere"),
        ("[x:children]\ny\n[y:children]\nx\n", "a circle of groups"),
        ("[x:children]\nx\n", "a circle of groups"),
        ("[x]\n[x:vars]\nansible_group_priority=high\n", "a whole number"),
    ],
)
def test_a_host_that_is_not_understood_stops_the_import(line: str, reason: str) -> None:
    """A cluster with a node less is worse than an error; told to, it is left out."""
    text = f"a\n{line}\n"
    with pytest.raises(UsageError, match="not understood") as caught:
        parse_ansible(text, "h")
    assert reason in str(caught.value)
    assert "--skip-unknown" in str(caught.value)

    skipped = parse_ansible(text, "h", skip_unknown=True)
    assert "a" in routes(loaded(skipped))
    assert any(reason in warning and "left out" in warning for warning in skipped.warnings)


def test_a_dynamic_inventory_is_named_as_such() -> None:
    """With the command that makes a static one."""
    for text in ('{"_meta": {"hostvars": {}}, "gpu": {"hosts": ["a"]}}', "plugin: aws_ec2\n"):
        with pytest.raises(UsageError) as caught:
            parse_ansible(text, "hosts.yml")
        assert "ansible-inventory -i FILE --list --yaml" in str(caught.value)


def test_a_host_called_as_its_group_gives_it_its_variables() -> None:
    """As Ansible sets them: by name, groups first; above the group they are the host's own."""
    imported = parse_ansible("[gpu]\ngpu ansible_user=ops\ngpu2\n", "hosts")
    assert routes(loaded(imported)) == {"gpu": "ops@gpu", "gpu2": "ops@gpu2"}
    told = "gpu is a host and a group: Ansible gives what stands behind the host to the group"
    assert imported.warnings == (f"hosts:2: {told}",)

    before = parse_ansible("gpu ansible_user=ops\n[gpu]\ngpu2\n", "hosts")
    assert routes(loaded(before)) == {"gpu": "ops@gpu", "gpu2": "gpu2"}


def test_who_is_below_ungrouped_has_its_variables() -> None:
    """And who is named there and elsewhere has not."""
    text = (
        "ungrouped: {hosts: {both: }, vars: {ansible_user: ops},"
        " children: {low: {hosts: {below: , both: }}}}\n"
    )
    found = routes(loaded(parse_ansible(text, "hosts")))
    assert found == {"both": "both", "below": "ops@below"}
