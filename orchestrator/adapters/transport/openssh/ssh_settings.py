"""What ``ssh`` says its configuration comes to for a node, and how it is run here."""

from __future__ import annotations

import asyncio
import fnmatch
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.transport.openssh import openssh_errors
from orchestrator.core.model.inventory import SshEndpoint

MAX_WORDS_BYTES = 64 * 1024
MAX_SETTINGS_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSettings:
    """What ``ssh -G`` prints: values by lower-case keyword, in order, and its text."""

    values: Mapping[str, Sequence[str]]
    text: bytes

    def first(self, keyword: str) -> str:
        return next(iter(self.values.get(keyword, ())), "")

    def words(self, keyword: str) -> list[str]:
        return [word for value in self.values.get(keyword, ()) for word in value.split()]

    @property
    def first_server(self) -> tuple[str, ...]:
        """The server that is dialled first: a jump host, or the node's own."""
        jump = self.first("proxyjump").partition(",")[0]
        return (jump,) if jump else (self.first("hostname"), self.first("port"))


async def read_settings(endpoint: SshEndpoint, timeout_s: float) -> SshSettings:
    """What the configuration comes to. Raises ``UsageError`` and ``PreflightError``."""
    argv = ("ssh", "-G", *endpoint.argv)
    code, text, words = await run_ssh(argv, timeout_s)
    if code is None:
        raise openssh_errors.slow_configuration(endpoint, timeout_s)
    if code != 0:
        raise openssh_errors.refused_configuration(endpoint, words)
    values: dict[str, list[str]] = {}
    for line in text.decode(errors="surrogateescape").splitlines():
        keyword, _, value = line.partition(" ")
        values.setdefault(keyword, []).append(value)
    return SshSettings(values=values, text=text)


def session_environment(
    settings: SshSettings, environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """What SendEnv and SetEnv of the configuration give to a session."""
    for pattern in settings.words("sendenv"):
        for name in sorted(environ):
            if fnmatch.fnmatchcase(name, pattern):
                yield name, environ[name]
    for pair in settings.values.get("setenv", ()):
        name, _, value = pair.partition("=")
        yield name, value


async def run_ssh(argv: Sequence[str], timeout_s: float) -> tuple[int | None, bytes, str]:
    """Exit code (None: it was ended after ``timeout_s``), output, and the words beside it.

    An ``ssh`` in the background keeps the streams that it was given: a pipe would not end.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as words:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=words,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout_s):
                code: int | None = await process.wait()
        except TimeoutError:
            code = None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        output.seek(0)
        words.seek(0)
        text = words.read(MAX_WORDS_BYTES).decode(errors="replace")
        return code, output.read(MAX_SETTINGS_BYTES), text
