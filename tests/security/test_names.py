"""Names that are none: refused with their place before anything happens, whatever way they come.

What single fields refuse, and with which words, is in tests/boundary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.core.base.nodeset import is_name
from orchestrator.parsing.inputs.inventory_file import load_cluster
from tests.security.looking import steers
from tests.security.rows import NAMES

Capture = pytest.CaptureFixture[str]
SAFE_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,252}")
SAFE_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,252}")  # also DOMAIN\user

rows = pytest.mark.parametrize("text", NAMES.values(), ids=NAMES)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project; whatever a shell would have touched lies in it."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return folder


def _files() -> list[Path]:
    """All around here but the cache of inventories that were valid."""
    found = Path.cwd().parent.rglob("*")
    return sorted(path for path in found if path.is_file() and path.parent.name != "inventories")


def refused(words: list[str], capsys: Capture) -> str:
    """The message of a command that must end with exit code 2, having done nothing."""
    before = _files()
    code = main(words)
    captured = capsys.readouterr()
    assert code == 2, captured.err[:2000]
    assert captured.out == ""
    assert not steers(captured.err)
    assert len(captured.err) < 20_000
    assert _files() == before
    return captured.err


ENTRIES = {
    "node": "name: c\nnodes:\n  - TEXT\n",
    "node-name": "name: c\nnodes:\n  - {name: TEXT}\n",
    "ssh": "name: c\nnodes:\n  - {name: a, ssh: TEXT}\n",
    "user": "name: c\nnodes:\n  - {name: a, user: TEXT}\n",
    "jump": "name: c\nnodes:\n  - {name: a, jump: TEXT}\n",
    "default-user": "name: c\nnodes: [a]\ndefaults: {user: TEXT}\n",
    "default-jump": "name: c\nnodes: [a]\ndefaults: {jump: TEXT}\n",
    "variable": "name: c\nnodes:\n  - {name: a, env: {TEXT: x}}\n",
    "secret": "name: c\nnodes:\n  - {name: a, env: {X: {secret: TEXT}}}\n",
    "label": "name: c\nnodes:\n  - {name: a, groups: [TEXT]}\n",
    "group": "name: c\nnodes: [a]\ngroups: {TEXT: a}\n",
    "member": "name: c\nnodes: [a]\ngroups: {g: TEXT}\n",
    "cluster": "nodes: [a]\nname: TEXT\n",
    "gpu": "name: c\nnodes:\n  - {name: a, gpus: {type: TEXT}}\n",
}


@rows
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_in_an_inventory(entry: str, text: str, project: Path, capsys: Capture) -> None:
    """Exit 2 with file and line, before contact."""
    (project / "c.yaml").write_text(entry.replace("TEXT", json.dumps(text)))

    message = refused(["exec", "-C", "c.yaml", "--", "true"], capsys)

    line = 1 + entry[: entry.index("TEXT")].count("\n")
    assert re.search(rf"c\.yaml:{line}:\d+: ", message), message


@pytest.mark.parametrize("jump", ["a,-b", "u@-b", "a@b@-c", "a,,b", "a:", "a:x", "[::1", "a,"])
def test_every_hop_of_a_jump_is_checked(jump: str, project: Path, capsys: Capture) -> None:
    """A hop's name goes into a ProxyCommand as %h: none may look like an option."""
    text = ENTRIES["jump"].replace("TEXT", json.dumps(jump))
    (project / "c.yaml").write_text(text)
    assert "not a jump host" in refused(["exec", "-C", "c.yaml", "--", "true"], capsys)


WORKLOAD = "name: NAME\nsummary: s\nentry: ENTRY\nparameters: {PARAMETER: {type: int, help: h}}\n"


@rows
@pytest.mark.parametrize("field", ["NAME", "PARAMETER"])
def test_in_a_workload(field: str, text: str, project: Path, capsys: Capture) -> None:
    """Names of workloads become folders, names of parameters become options."""
    values = {"NAME": "w", "ENTRY": "w.py", "PARAMETER": "p", field: json.dumps(text)}
    content = WORKLOAD
    for name, value in values.items():
        content = content.replace(name, value, 1)
    folder = project / "w"
    folder.mkdir()
    (folder / "w.py").touch()
    (folder / "workload.yaml").write_text(content)
    message = refused(["run", "-C", "local", "-W", "./w"], capsys)
    assert re.search(r"w/workload\.yaml:\d+:\d+: ", message), message


@pytest.mark.parametrize("entry", ["../x.py", "/etc/passwd", "a/../../x.py", "-c", "w\n.py"])
def test_an_entry_stays_in_its_folder(entry: str, project: Path, capsys: Capture) -> None:
    """The script of a workload is a file of the workload."""
    (project / "x.py").touch()
    folder = project / "w"
    folder.mkdir()
    text = f"name: w\nsummary: s\nentry: {json.dumps(entry)}\n"
    (folder / "workload.yaml").write_text(text)
    assert "w/workload.yaml" in refused(["run", "-C", "local", "-W", "./w"], capsys)


HOSTFILES: dict[str, Callable[[str], str]] = {
    "hostfile": lambda text: f"{text} slots=8\ngood slots=1\n",
    "slurm": lambda text: f"{text}\ngood\n",
    "ssh-config": lambda text: f"Host {text} good\n  User x\n",
    "ansible": lambda text: f"{text}\ngood\n",
}
ANSIBLE_FIELDS = ["ansible_host", "ansible_user", "ansible_ssh_common_args", "ansible_port"]


def imported(format: str, content: str, capsys: Capture) -> None:
    """Whatever the file holds: what comes out names harmless hosts and users only."""
    before = {path.name for path in Path.cwd().iterdir()}
    Path("foreign").write_text(content)
    code = main(["cluster", "import", format, "foreign"])
    captured = capsys.readouterr()
    assert not steers(captured.err)
    assert {path.name for path in Path.cwd().iterdir()} == before | {"foreign"}
    if code == 2:
        assert captured.out == ""
        return
    assert code == 0
    for node in load_cluster(captured.out, "imported").nodes:
        assert is_name(node.name)
        assert SAFE_HOST.fullmatch(node.ssh.host)
        assert node.ssh.user is None or SAFE_USER.fullmatch(node.ssh.user)
        for hop in (node.ssh.jump or "a").split(","):
            assert SAFE_USER.fullmatch(hop.rpartition("@")[2].strip("[]").replace(":", ""))


@rows
@pytest.mark.parametrize("format", HOSTFILES)
def test_hosts_in_files_of_other_tools(format: str, text: str, capsys: Capture) -> None:
    """Left out with a warning, refused, or harmless; the good neighbour does not depend on it."""
    imported(format, HOSTFILES[format](text), capsys)


@rows
@pytest.mark.parametrize("field", ANSIBLE_FIELDS)
def test_variables_of_ansible(field: str, text: str, capsys: Capture) -> None:
    """Values that Ansible would give to ssh do not become options here, in either format."""
    quoted = text.replace("'", "")
    imported("ansible", f"good {field}='{quoted}'\n", capsys)
    value = json.dumps({"all": {"hosts": {"good": {field: text}}}})
    imported("ansible", f"# yaml\nall:\n  hosts: {json.dumps({'good': {field: text}})}\n", capsys)
    assert value


@rows
@pytest.mark.parametrize(
    "words",
    [
        ["exec", "-C", "local", "--nodes", "TEXT", "--", "true"],
        ["exec", "-C", "TEXT", "--", "true"],
        ["run", "-C", "TEXT", "-W", "collectives"],
        ["run", "-C", "local", "-W", "TEXT"],
        ["run", "-C", "local", "--run-id", "TEXT", "--", "true"],
        ["run", "-C", "local", "--launcher", "TEXT", "--", "true"],
        ["run", "-C", "local", "--env", "TEXT=x", "--", "true"],
        ["run", "-C", "local", "--env", "TEXT", "--", "true"],
        ["run", "-C", "local", "--budget", "TEXT=3", "--", "true"],
        ["plan", "-C", "local", "--nodes", "@TEXT", "--", "true"],
        ["show", "TEXT"],
        ["logs", "TEXT"],
        ["attach", "TEXT"],
        ["stop", "TEXT"],
        ["clean", "TEXT"],
        ["cluster", "show", "TEXT"],
        ["workload", "show", "TEXT"],
        ["cluster", "import", "hostfile", "./TEXT"],
    ],
    ids=" ".join,
)
def test_on_the_command_line(words: list[str], text: str, capsys: Capture) -> None:
    """Exit 2 and nothing on disk; a name that begins with a dash is no option either."""
    refused([word.replace("TEXT", text) for word in words], capsys)


@rows
def test_in_the_environment(text: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """ORCHESTRATE_CLUSTER is as foreign as the option that it stands for."""
    monkeypatch.setenv("ORCHESTRATE_CLUSTER", text)
    refused(["exec", "--", "true"], capsys)
