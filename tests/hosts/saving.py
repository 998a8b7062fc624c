"""A rank that saves when it is first asked to end, and leaves without it when it is asked again."""

from __future__ import annotations

_SAVING = """
import os, signal, sys, time
rank, asked = os.environ["RANK"], 0

def save(*_):
    global asked
    asked += 1
    os.write(1, b"asked %d\\n" % asked)
    if asked > 1:
        os._exit(9)
    time.sleep(SECONDS)
    for folder in FOLDERS:
        open(os.path.join(os.environ[f"ORCHESTRATE_{folder}_DIR"], "saved-" + rank), "w").close()
    sys.exit(0)

signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
"""


def saving(*folders: str, seconds: str = "1", stay: str = "time.sleep(600)\n") -> str:
    """The script, which saves to ``saved-RANK`` in each of ``folders``: ``OUTPUT``, ``CHECKPOINT``.
    ``seconds``: how long it saves, an expression; ``stay``: what it does before.
    """
    return _SAVING.replace("SECONDS", seconds).replace("FOLDERS", repr(folders)) + stay
