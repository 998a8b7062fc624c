"""What becomes of ssh_config, and known_hosts as OpenSSH reads it: ``ssh-keygen -F`` judges."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.transport.ssh.known_hosts import trust_in
from orchestrator.adapters.transport.ssh.target import resolve_target
from orchestrator.adapters.transport.ssh_config.account import current_account
from orchestrator.adapters.transport.ssh_config.files import read_config
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.model.inventory import SshEndpoint
from orchestrator.parsing.ssh_config.values import READERS
from tests.contracts.transport.openssh import dump_in
from tests.contracts.transport.sshd import make_key, public_half
from tests.time_limits import scaled


def test_a_large_file_is_read_once(tmp_path: Path) -> None:
    """A change is noticed; without one the second host costs no parsing."""
    file = tmp_path / "config"
    file.write_text("Host a\n  Port 1\n")
    before = read_config(str(file))

    assert read_config(str(file))[0].blocks is before[0].blocks
    file.write_text("Host a\n  Port 22222\n")
    assert resolve_target(SshEndpoint(host="a", ssh_config=str(file))).port == 22222


@pytest.mark.parametrize(
    "text,id",
    [
        ("Match version x\n  Port 1\n", "OR-SSH-020"),
        ("Host 'unclosed\n", "OR-SSH-023"),
        ("Include {folder}/config\n", "OR-SSH-022"),
    ],
)
def test_what_cannot_be_understood_is_not_ignored(tmp_path: Path, text: str, id: str) -> None:
    """The message names the file and the line."""
    file = tmp_path / "config"
    file.write_text(text.format(folder=tmp_path))

    with pytest.raises(UsageError) as caught:
        resolve_target(SshEndpoint(host="a", ssh_config=str(file)))

    assert caught.value.id == id
    assert caught.value.where == f"{file}:1"


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    """A typo in the inventory does not silently become OpenSSH's defaults."""
    with pytest.raises(UsageError) as caught:
        resolve_target(SshEndpoint(host="a", ssh_config=str(tmp_path / "no")))

    assert caught.value.id == "OR-SSH-021"


WORDS = st.sampled_from([*READERS, "match", "compression", "x"])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)
LINES = st.one_of(
    TEXTS,
    st.builds("{} {}".format, WORDS, TEXTS),
    st.builds(
        "{} {}".format,
        st.sampled_from(["hostname", "userknownhostsfile", "include", "proxyjump", "match host"]),
        st.text(alphabet="~%${}[]@:,/!*?\"'\\#= ahn", max_size=12),
    ),
)


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(st.lists(LINES, max_size=4))
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    """Whatever a file holds: a place to go to, or an error for people."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config")
        file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        with contextlib.suppress(UsageError, PreflightError):
            assert resolve_target(SshEndpoint(host="a", ssh_config=str(file))).port > 0


@pytest.mark.parametrize("field", ["identity_file", "known_hosts", "ssh_config"])
def test_a_home_of_nobody(field: str) -> None:
    """In the inventory's own paths."""
    with pytest.raises(UsageError) as caught:
        resolve_target(
            replace(SshEndpoint(host="a", ssh_config="none"), **{field: "~nosuchuser/x"})
        )

    assert "~nosuchuser" in str(caught.value)


def test_the_inventory_overrules_the_file(tmp_path: Path) -> None:
    """As options on ssh's command line do."""
    file = tmp_path / "config"
    file.write_text(
        "Host *\n  HostName h\n  User a\n  Port 1\n  IdentityFile /k/file\n  ProxyJump j\n"
        "Host j\n  HostName jump\n"
    )
    endpoint = SshEndpoint(
        host="a",
        user="b",
        port=2,
        identity_file="/k/mine",
        known_hosts="/f/mine",
        jump="none",
        ssh_config=str(file),
    )

    target = resolve_target(endpoint)

    assert (target.host, target.user, target.port, target.via) == ("h", "b", 2, None)
    assert target.identity_files == ("/k/mine", "/k/file")
    assert target.identities_only
    assert target.known_hosts_files == ("/f/mine",)


@pytest.mark.processes
def test_the_command_that_errors_tell_goes_the_same_way(tmp_path: Path) -> None:
    """Everything that the inventory says, read by OpenSSH from the line as it is pasted."""
    file = tmp_path / "an odd name"
    file.write_text("Host a\n  HostName h\n  User a\n  Port 1\nHost j k\n  HostName %h.example\n")
    make_key(tmp_path / "my key")
    endpoint = SshEndpoint(
        host="a",
        user="b",
        port=2,
        identity_file=str(tmp_path / "my key"),
        known_hosts=str(tmp_path / "my hosts"),
        jump="j,k",
        ssh_config=str(file),
    )
    seen = read_by_openssh(endpoint.command("-G"))
    assert (seen["hostname"], seen["user"], seen["port"]) == (["h"], ["b"], ["2"])
    assert seen["identityfile"] == [str(tmp_path / "my key")]
    assert seen["userknownhostsfile"] == [str(tmp_path / "my hosts")]
    assert seen["proxyjump"] == ["j,k"]

    second = resolve_target(endpoint).via
    assert second is not None
    seen = read_by_openssh(second.endpoint.command("-G"))
    assert (seen["hostname"], seen["proxyjump"]) == (["k.example"], ["j"])


def read_by_openssh(line: str) -> dict[str, list[str]]:
    done = subprocess.run(
        ["sh", "-c", line], check=True, capture_output=True, text=True, timeout=scaled(10)
    )
    return dump_in(done.stdout)


def test_tokens_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the options that take them."""
    monkeypatch.setenv("KEYS", "/keys")
    file = tmp_path / "config"
    file.write_text(
        "Host a\n  HostName %h.example\n  User u\n  Port 9\n"
        "  IdentityFile ${KEYS}/%r@%h:%p-%n-%%\n  UserKnownHostsFile ~/kh-%h\n"
        "  ProxyCommand nc 'a b' %h %p\n"
    )

    target = resolve_target(SshEndpoint(host="a", ssh_config=str(file)))

    assert target.host == "a.example"
    assert target.identity_files == ("/keys/u@a.example:9-a-%",)
    assert target.known_hosts_files[0] == str(Path.home() / "kh-a.example")
    assert target.proxy_command == "nc 'a b' a.example 9"


@pytest.mark.parametrize(
    "jump,hops",
    [
        ("b", [("b", 22, current_account().name)]),
        ("u@b:2200", [("b", 2200, "u")]),
        ("ssh://u@b:2200", [("b", 2200, "u")]),
        ("u@[::1]:2200", [("::1", 2200, "u")]),
        ("a,u@b", [("a", 22, current_account().name), ("b", 22, "u")]),
    ],
)
def test_jump_notation(jump: str, hops: list[tuple[str, int, str]]) -> None:
    """``[user@]host[:port]``, several by commas, first hop first."""
    hop = resolve_target(SshEndpoint(host="t", jump=jump, ssh_config="none")).via

    seen: list[tuple[str, int, str]] = []
    while hop is not None:
        seen.insert(0, (hop.host, hop.port, hop.user))
        hop = hop.via
    assert seen == hops


def test_jump_circles_end() -> None:
    """Two hosts that each jump through the other."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config")
        file.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")

        with pytest.raises(PreflightError) as caught:
            resolve_target(SshEndpoint(host="a", ssh_config=str(file)))

    assert caught.value.id == "OR-SSH-008"


# known_hosts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three public keys."""
    folder = tmp_path_factory.mktemp("keys")
    return [public_half(make_key(folder / str(n))) for n in range(3)]


HOSTS = ["web", "*.example", "gpu-?,!gpu-2", "[web]:2200", "10.0.0.1,web2", "WEB3", "!gpu-1,*"]
NAMES = ["web", "a.example", "gpu-1", "gpu-2", "[web]:2200", "10.0.0.1", "web2", "web3", "other"]


@pytest.mark.processes
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hashed", [False, True])
def test_known_hosts_match_as_in_openssh(
    tmp_path: Path, keys: list[str], name: str, hashed: bool
) -> None:
    """The lines that ``ssh-keygen -F`` finds are the lines that we trust."""
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"{h} {keys[n % 3]}\n" for n, h in enumerate(HOSTS)))
    if hashed:
        command = ["ssh-keygen", "-H", "-f", str(file)]
        subprocess.run(command, check=True, capture_output=True, timeout=scaled(10))

    found = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(file)],
        check=False,
        capture_output=True,
        text=True,
        timeout=scaled(10),
    )
    expected = numbers(found.stdout.splitlines())

    assert sorted(key.place.line for key in trust_in([str(file)], [name]).keys) == expected


def numbers(lines: Iterable[str]) -> list[int]:
    """The line numbers in ``# Host web found: line 3``."""
    found = (line.split("found: line ")[1].split()[0] for line in lines if line.startswith("#"))
    return sorted(int(number) for number in found)


@pytest.mark.processes
def test_lines_that_mean_nothing_trust_nobody(tmp_path: Path, keys: list[str]) -> None:
    """Garbage, comments and broken hashes do no harm to the lines around them."""
    file = tmp_path / "known_hosts"
    file.write_bytes(
        b"# web " + keys[0].encode() + b"\n\n\xff\xfe garbage\nweb\nweb ssh-ed25519\n"
        b"web ssh-ed25519 not-base64!\n|1|bad|bad ssh-ed25519 AAAA\n|2|QQ==|QQ== ssh-rsa AAAA\n"
        + b"web "
        + keys[1].encode()
        + b" a comment\n"
    )

    (key,) = trust_in([str(file), str(tmp_path / "missing")], ["web"]).keys

    assert key.place.line == 9


@pytest.mark.processes
def test_the_name_with_a_port_comes_first(tmp_path: Path, keys: list[str]) -> None:
    """A line for ``[host]:port`` hides the one for the bare name, which serves if there is none."""
    file = tmp_path / "known_hosts"
    file.write_text(f"web {keys[0]}\n[web]:2200 {keys[1]}\n")

    def lines(*names: str) -> list[int]:
        return [key.place.line for key in trust_in([str(file)], names).keys]

    assert lines("[web]:2200", "web") == [2]
    assert lines("[web]:2201", "web") == [1]
