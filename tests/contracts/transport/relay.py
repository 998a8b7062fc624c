"""A ProxyCommand of one's own, and the lines of ssh_config that demand things."""

from __future__ import annotations

from pathlib import Path

from tests.contracts.transport.sshd import Sshd

RELAY = """\
#!/bin/sh
echo used >> "$(dirname "$0")/relay.log"
exec python3 -I -S -c '
import select, socket, sys, os
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for ready in select.select([0, far], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else far.recv(65536)
        if not data:
            sys.exit(0)
        far.sendall(data) if ready == 0 else os.write(1, data)
' "$1" "$2"
"""


def demand(server: Sshd, *lines: str) -> None:
    """Put ``lines`` into the server's block, before all others."""
    head, _, rest = server.config_block().partition("\n")
    server.ssh_config.write_text("\n".join([head, *lines, rest]))


def make_relay(folder: Path) -> Path:
    """A program that carries a connection to the address that it is given, and counts its runs."""
    file = folder / "relay"
    file.write_text(RELAY)
    file.chmod(0o755)
    return file


def runs(relay: Path) -> int:
    log = relay.with_name("relay.log")
    return len(log.read_text().splitlines()) if log.exists() else 0
