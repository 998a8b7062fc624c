"""The environment of the ranks' interpreter, in force without a shell that activates it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentError
from tests.contracts.agent.attempts import Attempt, shell
from tests.time_limits import scaled

pytestmark = pytest.mark.processes


@pytest.fixture
def conda(tmp_path: Path) -> Path:
    """A conda environment as far as anybody can tell from outside."""
    prefix = tmp_path / "conda/envs/llm"
    scripts = prefix / "etc/conda/activate.d"
    scripts.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "conda-meta").mkdir()
    (prefix / "bin/python").symlink_to(sys.executable)
    (prefix / "bin/tool").write_text("#!/bin/sh\necho tool of llm\n")
    (prefix / "bin/tool").chmod(0o755)
    (scripts / "a.sh").write_text('export CC="$CONDA_PREFIX/bin/cc"\necho loud\nlocal_only=1\n')
    (scripts / "b.sh").write_text('export FLAGS="-O2 of $CC" KEY="$KEY and more"\n')
    (scripts / "c.fish").write_text("not for this shell (((\n")
    state = {"env_vars": {"KEY": "s3cret", "odd name": "x"}}
    (prefix / "conda-meta/state").write_text(json.dumps(state))
    return prefix


async def resolved(channel: AgentChannel, kind: str, value: str) -> dict[str, str]:
    request = {"interpreter": {"kind": kind, "value": value}, "modules": []}
    reply = await channel.request("interpreter", request, timeout_s=scaled(30))
    environment = reply.fields["environment"]
    assert isinstance(environment, dict)
    return environment


async def test_a_virtual_environment_is_in_force(channel: AgentChannel, tmp_path: Path) -> None:
    """Whether it is named as one, or by its interpreter, which is a link to another one."""
    venv = tmp_path / "vv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    for kind, value in (("venv", str(venv)), ("interpreter", str(venv / "bin/python"))):
        environment = await resolved(channel, kind, value)
        assert environment["VIRTUAL_ENV"] == str(venv)
        assert environment["PATH"].split(":")[:1] == [str(venv / "bin")]
        assert environment["PATH"].endswith(os.environ["PATH"].split(":")[-1])
        assert set(environment) == {"PATH", "VIRTUAL_ENV"}


async def test_a_python_of_no_environment_changes_nothing(channel: AgentChannel) -> None:
    """Nor does a bare name, whose environment is the login's."""
    assert await resolved(channel, "interpreter", "/usr/bin/python3") == {}
    assert await resolved(channel, "interpreter", Path(sys.executable).name) == {}


async def test_a_conda_environment_is_in_force(channel: AgentChannel, conda: Path) -> None:
    """What its scripts and its owner set is named, and its values stay on the node."""
    environment = await resolved(channel, "conda", str(conda))
    assert environment.pop("PATH").startswith(f"{conda}/bin:")
    assert environment == {
        "CONDA_PREFIX": str(conda),
        "CONDA_DEFAULT_ENV": "llm",
        "CONDA_SHLVL": "1",
        "CC": "{environment:CC}",
        "FLAGS": "{environment:FLAGS}",
        "KEY": "{environment:KEY}",
    }


async def test_ranks_get_what_activation_sets(attempt: Attempt, conda: Path) -> None:
    """The values are filled in on the node, also within others; what a user sets replaces them."""
    environment = await resolved(attempt.channel, "conda", str(conda))
    environment = {**environment, "FLAGS": "mine", "MORE": "x:{environment:CC}"}
    script = 'tool; echo "$CC|$FLAGS|$KEY|$MORE|$CONDA_PREFIX"'
    await attempt.launch(shell(0, script, **environment))
    await attempt.to_end()

    values = f"{conda}/bin/cc|mine|s3cret and more|x:{conda}/bin/cc|{conda}"
    assert attempt.files["rank-0.out"].decode().splitlines() == ["tool of llm", values]


@pytest.mark.parametrize("script,said", [("echo no licence >&2; exit 4", "with 4: no licence")])
async def test_scripts_that_end_the_shell_are_told(
    channel: AgentChannel, conda: Path, script: str, said: str
) -> None:
    """They would end a user's shell, too: the node is not used with half of an environment."""
    (conda / "etc/conda/activate.d/a.sh").write_text(script)
    with pytest.raises(AgentError) as caught:
        await resolved(channel, "conda", str(conda))
    assert "activate.d ended the shell" in str(caught.value)
    assert said in str(caught.value)


async def test_a_value_that_is_no_longer_set_is_told(attempt: Attempt, conda: Path) -> None:
    """The environment changed since the plan was made."""
    environment = await resolved(attempt.channel, "conda", str(conda))
    (conda / "etc/conda/activate.d/a.sh").unlink()
    with pytest.raises(AgentError, match="does not set CC any more"):
        await attempt.launch(shell(0, "true", **environment))
