"""``Match`` conditions that OpenSSH 9.2 does not have: decided, or judged by what they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.transport.ssh.target import Target, resolve_target
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import SshEndpoint

NODE = "Host n1\n  HostName 192.0.2.11\n"
# Conditions that cannot be decided here: some of newer versions, one of none.
OPEN = ["localnetwork 198.51.100.0/24", "version OpenSSH_10*", "command git-*", "weather sunny"]


def resolved(tmp_path: Path, text: str, name: str = "n1") -> Target:
    file = tmp_path / "config"
    file.write_text(text)
    return resolve_target(SshEndpoint(host=name, ssh_config=str(file)))


@pytest.mark.parametrize(
    "text,port",
    [
        ("Host n1\n  Tag far\nMatch tagged far\n  Port 2222\n", 2222),
        ("Host n1\n  Tag far\nMatch tagged near,f*\n  Port 2222\n", 2222),
        ("Host n1\n  Tag far\nMatch !tagged far\n  Port 2222\n", 22),
        ("Host other\n  Tag far\nMatch tagged far\n  Port 2222\n", 22),
        ('Match tagged ""\n  Port 2222\n', 2222),
        ('Host n1\n  Tag far\nMatch tagged ""\n  Port 2222\n', 22),
        ("Match sessiontype exec\n  Port 2222\n", 2222),
        ("Match sessiontype=shell,subsystem\n  Port 2222\n", 22),
    ],
)
def test_conditions_that_can_be_decided(tmp_path: Path, text: str, port: int) -> None:
    """A tag is a word of the same file, and a session always executes a command."""
    assert resolved(tmp_path, text).port == port


@pytest.mark.parametrize("condition", OPEN)
@pytest.mark.parametrize(
    "lines",
    [
        "  ForwardAgent yes\n  ServerAliveInterval 5\n",
        "  ProxyJump none\n",
        "  HostName 192.0.2.99\n  User root\n",
        "  Port 22\n  AddressFamily any\n",
        "Host other\n  Port 2222\n",
    ],
)
def test_what_does_not_change_how_a_node_is_reached_is_harmless(
    tmp_path: Path, condition: str, lines: str
) -> None:
    """Nothing that counts, what is so anyway, and what an earlier line has settled."""
    before = "Host n1\n  HostName 192.0.2.11\n  User root\n"

    target = resolved(tmp_path, f"{before}Match {condition}\n{lines}")

    assert (target.host, target.user, target.port, target.via) == ("192.0.2.11", "root", 22, None)


@pytest.mark.parametrize("condition", OPEN)
@pytest.mark.parametrize(
    "line,keyword",
    [
        ("Port 2222", "port"),
        ("User bob", "user"),
        ("ProxyJump b", "proxyjump"),
        ("IdentityFile /k", "key file"),
        ("SetEnv A=b", "setenv"),
        ("HostKeyAlias x", "hostkeyalias"),
    ],
)
def test_what_would_change_it_refuses_the_node(
    tmp_path: Path, condition: str, line: str, keyword: str
) -> None:
    """With the condition, the line, and the keyword that hangs on it."""
    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, f"{NODE}Match {condition}\n  {line}\n")

    error = caught.value
    assert error.id == "OR-SSH-020"
    assert error.what == f"cannot evaluate 'Match {condition.split(maxsplit=1)[0]}'"
    assert error.where.endswith("config:3")
    assert keyword in error.why


def test_the_condition_that_matters_is_named(tmp_path: Path) -> None:
    """Not the first one of the file."""
    text = f"{NODE}Match version x\n  Port 22\nMatch command y\n  Port 2222\n"

    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, text)

    assert caught.value.what == "cannot evaluate 'Match command'"
    assert caught.value.where.endswith("config:5")


def test_only_the_nodes_that_it_is_about_are_refused(tmp_path: Path) -> None:
    """The other conditions of the line are decided first."""
    text = f"{NODE}Match host other localnetwork 198.51.100.0/24\n  Port 2222\n"

    assert resolved(tmp_path, text).port == 22
    with pytest.raises(UsageError):
        resolved(tmp_path, text, "other")


def test_two_open_conditions_may_matter_together(tmp_path: Path) -> None:
    """Every way in which they could hold is looked at."""
    text = (
        f"{NODE}Match localnetwork 198.51.100.0/24\n  Tag near\n"
        "Match version OpenSSH_10* tagged near\n  Port 2222\n"
    )

    with pytest.raises(UsageError):
        resolved(tmp_path, text)


def test_an_include_in_an_open_block(tmp_path: Path) -> None:
    """What it brings counts as well."""
    (tmp_path / "harmless").write_text("ForwardAgent yes\n")
    (tmp_path / "other").write_text("Port 2222\n")
    text = f"{NODE}Match version x\n  Include {tmp_path}/"

    assert resolved(tmp_path, f"{text}harmless\n").port == 22
    with pytest.raises(UsageError):
        resolved(tmp_path, f"{text}other\n")


def test_a_jump_host_in_doubt(tmp_path: Path) -> None:
    """The way to the jump host is part of the way."""
    text = f"{NODE}  ProxyJump b\nMatch host b localnetwork 198.51.100.0/24\n  Port 2222\n"

    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, text)

    assert "for b," in caught.value.why


def test_too_many_open_conditions(tmp_path: Path) -> None:
    """Bounded: the ways in which they could hold double with each."""
    text = NODE + "".join(f"Match version x{n}\n  Port 22\n" for n in range(40))

    with pytest.raises(UsageError) as caught:
        resolved(tmp_path, text)

    assert caught.value.id == "OR-SSH-020"
