"""The user's ``ssh``, run here."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

from orchestrator.adapters.transport.openssh import openssh_errors
from orchestrator.adapters.transport.openssh.config_sources import find_sources
from orchestrator.adapters.transport.openssh.remembered_answers import RememberedAnswers
from orchestrator.adapters.transport.openssh.ssh_settings import SshSettings, parse_settings
from orchestrator.adapters.transport.ssh.failures import slow_configuration
from orchestrator.core.model.inventory import SshEndpoint

MAX_WORDS_BYTES = 64 * 1024
MAX_SETTINGS_BYTES = 1024 * 1024
KILLED_WITHIN_S = 5.0


async def read_settings(endpoint: SshEndpoint, timeout_s: float) -> SshSettings:
    """What the configuration comes to. Raises ``UsageError`` and ``PreflightError``."""
    answers = RememberedAnswers(os.environ)
    if (kept := answers.find(endpoint)) is not None:
        return parse_settings(kept)
    sources = find_sources(endpoint.ssh_config)
    # -v: it then says which files it reads.
    code, text, words = await run_ssh(("ssh", "-G", "-v", *endpoint.argv), timeout_s)
    if code is None:
        raise slow_configuration(endpoint, endpoint.host, timeout_s)
    if code != 0:
        raise openssh_errors.refused_configuration(endpoint, _without_debug(words))
    settings = parse_settings(text)
    if sources is not None:
        answers.keep(endpoint, settings, sources, words)
    return settings


def _without_debug(words: str) -> str:
    lines = words.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("debug1: ", "OpenSSH_")))


async def run_ssh(argv: Sequence[str], timeout_s: float) -> tuple[int | None, bytes, str]:
    """Exit code (None: it was ended after ``timeout_s``), output, and the words beside it.

    An ``ssh`` in the background keeps the streams that it was given: a pipe would not end.
    """
    import tempfile  # not for those that only use what is kept

    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as words:
        process, code = None, None
        # The start is within the limit, too: when a loop ends it cancels asyncio's own part of a
        # start, and a start without that part waits for ever.
        try:
            async with asyncio.timeout(timeout_s):
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=words,
                    start_new_session=True,
                )
                code = await process.wait()
        except TimeoutError:
            pass
        finally:
            if process is not None and process.returncode is None:
                process.kill()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILLED_WITHIN_S)
        output.seek(0)
        words.seek(0)
        text = words.read(MAX_WORDS_BYTES).decode(errors="replace")
        return code, output.read(MAX_SETTINGS_BYTES), text
