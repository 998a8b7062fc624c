"""The agent as it travels: one deterministic zip, and the text that starts it on a node.

With it travels ``rank_env``: programs of ours that run under the interpreter of the ranks.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator import node_agent
from orchestrator.core.base.command import Command

NODE_AGENT = Path(node_agent.__file__).parent
TEXTS = ("stage0", "base/bootstrap")  # these also travel as they are, ahead of the zip
EPOCH = (1980, 1, 1, 0, 0, 0)
# Standard input is: the length of the first text, the text, a header line, then frames.
# -I -S: no start-up file of the user or the site runs; they cost more time than all the rest.
LOADER = "import sys;i=sys.stdin.buffer;exec(i.read(int(i.readline())))"


@dataclass(frozen=True, slots=True)
class AgentPackage:
    """``archive`` is a zip of the node side; ``digest`` its SHA-256 in hexadecimal."""

    archive: bytes
    digest: str
    first: bytes
    bootstrap: bytes

    def greeting(
        self,
        nonce: str,
        workdir: str,
        *,
        glance: Mapping[str, object] | None = None,
        offer: Mapping[str, object] | None = None,
    ) -> bytes:
        """What to write first. With ``glance`` the node answers that request and ends; with
        ``offer`` it does if it has that snapshot, and says in its hello what it lacks if not.
        """
        header: dict[str, object] = {"nonce": nonce, "digest": self.digest, "workdir": workdir}
        if glance is not None:
            header["glance"] = dict(glance)
        if offer is not None:
            header["offer"] = dict(offer)
        # The header is a literal of Python: ASCII, and in one line.
        return b"%d\n%s%s\n" % (len(self.first), self.first, ascii(header).encode())

    def parcel(self) -> bytes:
        """What to write when the node says that it needs the package."""
        parts = (self.bootstrap, self.archive)
        return b"".join(b"%d\n%s" % (len(part), part) for part in parts)


def start_command(python: str = "python3") -> Command:
    """The command that starts the agent. ``python``: a name on the PATH, or a path; one below the
    home directory may be written with ``~/``, as commands start there.
    """
    return Command(argv=(python.removeprefix("~/"), "-I", "-S", "-c", LOADER, "orchestrate-agent"))


@cache
def agent_package() -> AgentPackage:
    """The same bytes from the same sources on every machine."""
    root = NODE_AGENT.parents[1]
    files = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in NODE_AGENT.rglob("*.py")
    }
    files["orchestrator/__init__.py"] = b""
    buffer = io.BytesIO()
    # Stored: compressors differ between machines, and the agent travels once per node and version.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), files[name])
    data = buffer.getvalue()
    first, bootstrap = ((NODE_AGENT / f"{name}.py").read_bytes() for name in TEXTS)
    return AgentPackage(data, hashlib.sha256(data).hexdigest(), first, bootstrap)
