"""What ``ssh -G`` answered is used again only while it would answer the same."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.adapters.cache import json_cache
from orchestrator.adapters.transport.openssh import ssh_program
from orchestrator.adapters.transport.openssh.config_sources import find_sources
from orchestrator.adapters.transport.openssh.remembered_answers import (
    KEPT_S,
    RememberedAnswers,
    files_read,
)
from orchestrator.adapters.transport.openssh.ssh_program import read_settings, run_ssh
from orchestrator.adapters.transport.openssh.ssh_settings import parse_settings
from orchestrator.adapters.transport.ssh_config.account import current_account
from orchestrator.core.model.inventory import SshEndpoint
from tests.time_limits import scaled

LIMIT_S = 60.0


class Lab:
    """A configuration in files of its own, and how often ``ssh`` was asked what it comes to."""

    def __init__(self, root: Path) -> None:
        self.config = root / "config"
        self.more = root / "more.d"
        self.answers = root / "home" / "cache" / "ssh"
        self.more.mkdir(mode=0o700)
        self.asked = 0
        self.after_asking: Callable[[], object] = lambda: None
        (self.more / "first").write_text("Host gpu*\n  User one\n")
        self.write("Host gpu1\n  HostName 192.0.2.1\n")

    def write(self, lines: str) -> None:
        self.config.write_text(f"Include {self.more}/*\n{lines}")

    def endpoint(self, host: str = "gpu1", **options: object) -> SshEndpoint:
        return SshEndpoint(host=host, ssh_config=str(self.config), **options)  # type: ignore[arg-type]

    async def read(self, endpoint: SshEndpoint | None = None) -> dict[str, Sequence[str]]:
        """The settings; whatever was remembered, they are what ``ssh`` says at this moment."""
        endpoint = endpoint or self.endpoint()
        settings = await read_settings(endpoint, scaled(LIMIT_S))
        _, now, _ = await run_ssh(("ssh", "-G", "-v", *endpoint.argv), scaled(LIMIT_S))
        assert settings.values == parse_settings(now).values
        return dict(settings.values)

    async def run(self, argv: Sequence[str], timeout_s: float) -> tuple[int | None, bytes, str]:
        self.asked += 1
        answer = await run_ssh(argv, timeout_s)
        self.after_asking()
        return answer


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(tmp_path)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(ssh_program, "run_ssh", made.run)
    return made


@pytest.mark.processes
async def test_the_same_question_is_asked_once(lab: Lab) -> None:
    first = await lab.read()
    assert first["user"] == ["one"]
    assert await lab.read() == first
    assert lab.asked == 1


def same_size_and_time(lab: Lab) -> None:
    before = lab.config.stat()
    lab.config.write_text(lab.config.read_text().replace("192.0.2.1", "192.0.2.9"))
    os.utime(lab.config, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert lab.config.stat().st_size == before.st_size


def exchange(path: Path, source: str | Path) -> None:
    """Put a copy of ``source`` in the place of ``path``, as installers and editors do."""
    new = path.with_name("new")
    shutil.copy2(source, new)
    new.replace(path)


CHANGES: dict[str, Callable[[Lab], object]] = {
    "content": same_size_and_time,
    "included": lambda lab: (lab.more / "first").write_text("Host gpu*\n  User two\n"),
    "one more": lambda lab: (lab.more / "0").write_text("Host gpu*\n  User two\n"),
    "one less": lambda lab: (lab.more / "first").unlink(),
    "exchanged": lambda lab: exchange(lab.config, lab.config),
    "mode": lambda lab: lab.config.chmod(0o640),
}


@pytest.mark.processes
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_file_that_changed_has_ssh_asked(lab: Lab, change: Callable[[Lab], object]) -> None:
    """At once, whatever its size and time say; a file that appears or goes is a change, too."""
    lab.config.chmod(0o600)
    await lab.read()
    change(lab)
    await lab.read()
    assert lab.asked == 2
    await lab.read()
    assert lab.asked == 2


@pytest.mark.processes
async def test_other_words_are_another_question(lab: Lab) -> None:
    for endpoint in (lab.endpoint(), lab.endpoint("gpu2"), lab.endpoint(user="x", port=2222)):
        await lab.read(endpoint)
    assert lab.asked == 3


@pytest.mark.processes
@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "OPENSSL_CONF", "HOME"])
async def test_variables_that_decide_are_part_of_the_question(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    await lab.read()
    monkeypatch.setenv(name, "/nonexistent")
    await lab.read()
    assert lab.asked == 2


@pytest.mark.processes
async def test_another_machine_asks_for_itself(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home is often shared, and ``%L`` is the machine's name."""
    await lab.read()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    await lab.read()
    assert lab.asked == 2


@pytest.mark.processes
async def test_another_ssh_is_asked(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First in PATH, then as an update puts it in the place of that."""
    await lab.read()
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    real = shutil.which("ssh")
    assert real
    shutil.copy2(real, program)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    await lab.read()
    assert lab.asked == 2
    exchange(program, real)
    await lab.read()
    assert lab.asked == 3


@pytest.mark.processes
async def test_a_script_in_the_place_of_ssh_is_asked_each_time(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / "ssh"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    for _ in range(2):
        await lab.read()
    assert lab.asked == 2


@pytest.mark.processes
async def test_a_condition_that_runs_a_command_runs_it_each_time(lab: Lab, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    lab.write(f'Match exec "echo x >> {ran}"\n  Port 2222\n')
    endpoint = lab.endpoint()
    for _ in range(2):
        assert (await read_settings(endpoint, scaled(LIMIT_S))).first("port") == "2222"
    assert lab.asked == 2
    assert ran.read_text() == "x\nx\n"


@pytest.mark.processes
async def test_a_name_that_is_looked_up_is_asked_each_time(lab: Lab) -> None:
    lab.write("Host *\n  CanonicalizeHostname yes\n")
    for _ in range(2):
        await lab.read(lab.endpoint("127.0.0.1"))
    assert lab.asked == 2


REFUSED = (
    "Match exec true",
    "Host a\nMatch host b !exec true",
    "Match localnetwork 10.0.0.0/8",
    "Match unheard-of x",
    "Host a\n  ControlPath ${XDG_RUNTIME_DIR}/%C",
    "Include $HOME/x",
    "Include %d/x",
    "Include [ab]*",
    "Include ~nobody/x",
    "User 'a",
)


@pytest.mark.parametrize("line", REFUSED)
def test_what_depends_on_more_than_files_has_no_sources(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config"
    config.write_text(f"{line}\n")
    config.chmod(0o600)
    assert find_sources(str(config)) is None


@pytest.mark.parametrize("line", ["Host a", "Match host a user b", "Match final", "Include x ~/y"])
def test_what_depends_on_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("HOME", current_account().home)
    config = tmp_path / "config"
    config.write_text(f"# ${{COMMENT}}\n{line}\n")
    config.chmod(0o600)
    sources = find_sources(str(config))
    assert sources is not None
    assert str(config) in sources.present
    assert sources.are_unchanged()


def test_a_home_of_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of ``ssh`` do not agree whose home an ``Include`` means then."""
    config = tmp_path / "config"
    config.write_text("Include x\n")
    config.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_sources(str(config)) is None


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_write_has_no_sources(tmp_path: Path, mode: int) -> None:
    config = tmp_path / "config"
    config.write_text("Host a\n")
    config.chmod(mode)
    assert find_sources(str(config)) is None


def test_a_path_that_depends_on_the_folder_has_no_sources() -> None:
    assert find_sources("config") is None
    none = find_sources("none")
    assert none is not None
    assert none.present == set()


@pytest.mark.processes
async def test_a_file_that_changes_while_ssh_reads_it(lab: Lab) -> None:
    """Its answer belongs to neither version."""
    lab.after_asking = lambda: lab.write("Host gpu1\n  Port 2222\n")
    await read_settings(lab.endpoint(), scaled(LIMIT_S))
    lab.after_asking = lambda: None
    assert (await lab.read())["port"] == ["2222"]
    assert lab.asked == 2


@pytest.mark.parametrize("also_read", ["", "/etc/a-file-that-we-do-not-know-of"])
def test_what_ssh_read_must_be_what_we_know_of(lab: Lab, also_read: str) -> None:
    """An ``ssh`` that was built to read another file of the system, or that reads less."""
    sources = find_sources(str(lab.config))
    assert sources is not None
    lines = [f"debug1: Reading configuration data {path}\r\n" for path in sources.present]
    assert files_read("".join(lines)) == sources.present
    other = [*lines, f"debug1: Reading configuration data {also_read}\r\n"] if also_read else []
    answers = RememberedAnswers(os.environ)

    answers.keep(lab.endpoint(), parse_settings(b"user x\n"), sources, "".join(other))
    assert answers.find(lab.endpoint()) is None
    answers.keep(lab.endpoint(), parse_settings(b"user x\n"), sources, "".join(lines))
    assert answers.find(lab.endpoint()) == b"user x\n"


@pytest.mark.parametrize("later_s", [KEPT_S + 1, -1])
def test_an_answer_ages(lab: Lab, later_s: float) -> None:
    """Also when the clock was set back."""
    now = 1000.0
    answers = RememberedAnswers(os.environ, lambda: now)
    sources = find_sources(str(lab.config))
    assert sources is not None
    said = "".join(f"debug1: Reading configuration data {path}\n" for path in sources.present)
    answers.keep(lab.endpoint(), parse_settings(b"user x\n"), sources, said)
    assert answers.find(lab.endpoint())
    now += later_s
    assert answers.find(lab.endpoint()) is None


@pytest.mark.processes
@pytest.mark.parametrize("damage", ["", "{}", '"files"', "text"])
async def test_a_damaged_entry_is_none(lab: Lab, damage: str) -> None:
    await lab.read()
    (entry,) = lab.answers.glob("*.json")
    whole = entry.read_text()
    entry.write_text(whole.replace(damage, "x") if damage in {'"files"', "text"} else damage)
    await lab.read()
    assert lab.asked == 2


@pytest.mark.processes
async def test_a_full_disk_keeps_nobody_from_asking(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json_cache, "write_atomic", full)
    for _ in range(2):
        await lab.read()
    assert lab.asked == 2
    assert not list(lab.answers.glob("*.json"))


@pytest.mark.processes
async def test_answers_are_for_this_user_alone(lab: Lab) -> None:
    await lab.read()
    (entry,) = lab.answers.glob("*.json")
    assert (lab.answers.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o700, 0o600)
