#!/bin/sh
# paramiko 5.1.0 does not read the message `exit-signal` (RFC 4254, section 6.10). A program that a
# signal killed has the exit status -1, which is also what a channel has that closed without any
# status; nothing in the API tells the two apart, nor names the signal. asyncssh 2.24.1, client of
# the same server in the same run, gets the signal's name.
#
# Seen on 2026-11-30, clients of one asyncssh server on loopback:
#     the program exits with 3:             paramiko 3,  asyncssh status 3
#     the program is killed by SIGKILL:     paramiko -1, asyncssh signal KILL
#     the channel closes without a status:  paramiko -1, asyncssh neither
#
# Needs Python 3.11 and a package index.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check asyncssh==2.24.1 paramiko==5.1.0

cat >ask.py <<'PROGRAM'
import asyncio

import asyncssh
import paramiko


def end(process: asyncssh.SSHServerProcess) -> None:
    match process.command:
        case "exit":
            process.exit(3)
        case "signal":
            process.exit_with_signal("KILL")
        case _:
            process.close()


class AnyUser(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


def by_paramiko(port: int, command: str) -> str:
    with paramiko.Transport(("127.0.0.1", port)) as link:
        link.start_client(timeout=10)
        link.auth_none("user")
        channel = link.open_session(timeout=10)
        channel.exec_command(command)
        return str(channel.recv_exit_status())


async def by_asyncssh(port: int, command: str) -> str:
    async with asyncssh.connect(
        "127.0.0.1", port, username="user", known_hosts=None, client_keys=None, config=None
    ) as link:
        done = await link.run(command)
        if done.exit_signal:
            return f"signal {done.exit_signal[0]}"
        return "neither" if done.exit_status in (None, -1) else f"status {done.exit_status}"


async def main() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    async with asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[key], server_factory=AnyUser, process_factory=end
    ) as server:
        port = server.get_port()
        for command in ("exit", "signal", "close"):
            old = await asyncio.to_thread(by_paramiko, port, command)
            print(f"{command}: paramiko {old}, asyncssh {await by_asyncssh(port, command)}")


asyncio.run(main())
PROGRAM
timeout 60 env/bin/python ask.py | tee seen
cat >expected <<'LINES'
exit: paramiko 3, asyncssh status 3
signal: paramiko -1, asyncssh signal KILL
close: paramiko -1, asyncssh neither
LINES
cmp -s seen expected || { echo 'this has changed' >&2; exit 1; }
