"""A server of OpenAI's protocol that says one word, and misbehaves as it is asked to.

    python fake_server.py --port 8000 [--never-healthy] [--stubborn] [--fail TEXT]

``--stubborn`` ignores SIGTERM, as do a child of its process group and one that left it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stdin.read()"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--never-healthy", action="store_true")
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--fail", default="")
    parser.add_argument("--word", default="yes")
    return parser.parse_args()


OPTIONS = parsed()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = 503 if OPTIONS.never_healthy else 200
        self._answer(found, {"object": "list", "data": [{"id": "fake"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, {"choices": [{"index": 0, "text": OPTIONS.word}]})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def start_deaf(*, away: bool) -> subprocess.Popen[bytes]:
    """A child that ignores SIGTERM; it reads a pipe that nobody closes while this process lives."""
    read, _ = os.pipe()
    command = [sys.executable, "-I", "-S", "-c", DEAF]
    return subprocess.Popen(command, stdin=read, start_new_session=away)


def main() -> None:
    if OPTIONS.fail:
        say("reading the model")
        sys.exit(OPTIONS.fail)
    say("arguments", json.dumps(sys.argv[1:]))
    say("gpus", os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("RANK"))
    if OPTIONS.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children = [start_deaf(away=away) for away in (False, True)]
        say("pids", os.getpid(), *(child.pid for child in children))
    with ThreadingHTTPServer(("127.0.0.1", OPTIONS.port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
