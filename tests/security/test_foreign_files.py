"""A file that is no inventory: refused, and never read out to whoever named it.

That YAML is bounded and holds no objects is in tests/parsing/test_yaml_source.py.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.main import main
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.file_sizes import MAX_FILE_BYTES
from orchestrator.parsing.inputs.inventory_file import load_cluster
from orchestrator.parsing.inputs.workloads.workload_file import load_workload
from tests.security.looking import forms, steers
from tests.time_limits import scaled

Capture = pytest.CaptureFixture[str]
CANARY = "cAnArY-7f3a"

FILES = {
    "dotenv": f"TOKEN={CANARY}\n",
    "shadow": f"root:$6${CANARY}:19000:0:99999:7:::\n",
    "netrc": f"machine example.org\nlogin bob\npassword {CANARY}\n",
    "ini": f"[default]\naws_secret_access_key = {CANARY}\n",
    "json": f'{{"type": "service", "private_key": "{CANARY}"}}',
    "json-list": f'["{CANARY}"]',
    "mapping": f"token: {CANARY}\nuser: {{password: {CANARY}}}\n",
    "header": f"Authorization: Bearer {CANARY}\n\n",
    "colons": f"a: {CANARY}: b\n",
    "tag": f"!{CANARY} x\n",
    "tag-in-inventory": f"name: c\nnodes: [a]\nsummary: !{CANARY} x\n",
    "tag-handle": f"!{CANARY}!x y\n",
    "verbatim-tag": f"!<{CANARY}> x\n",
    "object": f"name: !!python/object/apply:os.system ['{CANARY}']\n",
    "alias": f"*{CANARY}\n",
    "anchor": f"&{CANARY} &{CANARY} x\n",
    "directive": f"%YAML {CANARY}\n---\n",
    "tag-directive": f"%TAG !a! {CANARY}\n---\n!b!x y\n",
    "open-quote": f"'{CANARY}\n",
    "open-double-quote": f'a: "{CANARY}\n',
    "bad-escape": f'"{CANARY}\\q"\n',
    "bad-number": f'"\\x{CANARY}"\n',
    "reserved": f"@{CANARY}\n",
    "block": f"a: |{CANARY}\n",
    "list": f"- {CANARY}\na: b\n",
    "simple-key": f"a: b\n{CANARY}\nc: d\n",
    "tab": f"a:\n\t{CANARY}: b\n",
    "binary": f"\x00\x01{CANARY}",
    "bom": f"\ufeffTOKEN={CANARY}\n",
    "two-documents": f"a: {CANARY}\n---\nb: {CANARY}\n",
    "complex-key": f"? [{CANARY}]\n: x\n",
    "merge": f"a: &x {{b: {CANARY}}}\nc: {{<<: *x}}\n",
    "deep": "[" * 40 + CANARY,
    "huge": CANARY + " " * MAX_FILE_BYTES,
}
FORMATS = ["hostfile", "ansible", "ssh-config", "slurm"]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=["ed25519", "PEM"])
def private_key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A key as ssh-keygen writes it, new and old style."""
    path = tmp_path_factory.mktemp("key") / "id"
    kind = ["-t", "rsa", "-m", "PEM"] if request.param == "PEM" else ["-t", "ed25519"]
    subprocess.run(
        ["ssh-keygen", "-q", *kind, "-N", "", "-f", str(path)], check=True, timeout=scaled(60)
    )
    return path.read_text()


def ways(text: str) -> list[list[str]]:
    """Every command that reads a file of the user's choice as YAML."""
    Path("any").write_text(text, encoding="utf-8", errors="surrogateescape")
    Path("any.yaml").write_bytes(Path("any").read_bytes())
    return [
        ["cluster", "validate", "./any"],
        ["cluster", "show", "./any", "--json"],
        ["exec", "--cluster", "./any", "--", "true"],
        ["run", "--cluster", "./any", "--json", "--", "true"],
        ["workload", "show", "any.yaml"],
    ]


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_errors_do_not_read_files_out(text: str, capsys: Capture) -> None:
    """Place and kind of the mistake, exit 2; not a word of the content on either stream."""
    for words in ways(text):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert "any" in err
        assert not [form for form in forms(CANARY) if form in (out + err).encode()], words
        assert not steers(err)


@pytest.mark.processes
def test_errors_do_not_read_keys_out(private_key: str, capsys: Capture) -> None:
    """No line of a private key, nor the half of one."""
    secret = [line for line in private_key.splitlines() if len(line) > 16 and "---" not in line]
    for words in ways(private_key):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert not [line for line in secret if line[:16] in out + err]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "text", [f"={CANARY}={CANARY}!\n", f"'{CANARY}\n", f";;; {CANARY}\n/{CANARY}/\n"]
)
def test_an_import_of_nothing_reads_nothing_out(format: str, text: str, capsys: Capture) -> None:
    """A file without a host is named with the places of what was not understood; an ssh_config that
    ssh refuses with the place of its first bad line.
    """
    Path("any").write_text(text)
    assert main(["cluster", "import", format, "any"]) == 2
    captured = capsys.readouterr()
    assert CANARY not in captured.out + captured.err
    assert "no host found" in captured.err or (
        format == "ssh-config"
        and re.search(r"any:\d: .*\n.*ssh refuses the whole file", captured.err)
    )


def test_an_inventory_still_hears_what_is_wrong(capsys: Capture) -> None:
    """What is recognisably ours is quoted: a message without the wrong word helps nobody."""
    Path("c.yaml").write_text("name: c\nnodes: [{name: a, port: twenty, gpuss: 2}]\n")
    assert main(["cluster", "validate", "c.yaml"]) == 2
    err = capsys.readouterr().err
    assert "found the text 'twenty'" in err
    assert "unknown key 'gpuss'" in err
    assert "did you mean 'gpus'?" in err


SIGNS = [*":'\"!&*|>%@[]{}#?, \n\t\\", "- ", "? ", "---\n", "<<", "x", "%TAG ", "!<", "\\x"]
PIECES = st.sampled_from([CANARY, *SIGNS])
LOADERS: list[Callable[[str], object]] = [
    lambda text: load_cluster(text, "f"),
    lambda text: load_workload(text, "f", "/"),
]


@pytest.mark.parametrize("load", LOADERS, ids=["cluster", "workload"])
@given(pieces=st.lists(PIECES, max_size=12))
def test_no_broken_text_is_read_out(load: Callable[[str], object], pieces: list[str]) -> None:
    """The same for text that nobody thought of; names of keys may be told, up to 80 characters."""
    text = "".join(pieces)
    try:
        load(text)
    except UsageError as error:
        told = str(error)
        for line in told.splitlines():
            assert CANARY not in line or " key " in line, told
