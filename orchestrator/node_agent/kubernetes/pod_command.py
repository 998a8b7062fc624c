"""Runs one command in a pod, between words that say that it began and how it ended.

What kubectl says of a command's end is its own: a stream that broke may look like a success. So the
end is part of both streams. Signs of life go to standard error while it runs: a machine that is
lost ends no stream. This text travels in the command line of kubectl exec: it imports nothing of
this package, and stays short.
"""

import base64
import os
import select
import signal
import sys


def run_command() -> None:
    """``sys.argv``: a marker, seconds between signs of life, the shared work directory, and in
    Base64, since what is between may change words that are not UTF-8: the directory or nothing, the
    number of variables, the variables and the command.
    """
    marker, pause, work = sys.argv[1:4]
    packed = base64.urlsafe_b64decode("".join(sys.argv[4:]))
    folder, count, *words = map(os.fsdecode, packed.split(b"\0"))
    if os.path.isdir(work) and os.stat(work).st_uid == os.getuid():
        # An emptyDir is anybody's to write to; what is in it is not to be anybody's to replace.
        os.chmod(work, 0o1777)  # noqa: S103
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    child = os.fork()
    if child:
        how = _await_end(child, marker, float(pause))
        for stream in (1, 2):
            _write(stream, "%s.%s\n" % (marker, how))
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.setsid()
    for stream in (1, 2):
        _write(stream, "%s %d\n" % (marker, os.getpid()))
    _become(folder, words[: int(count)], words[int(count) :])


def _become(folder: str, variables: "list[str]", words: "list[str]") -> None:
    try:
        home = os.path.expanduser("~")
        os.chdir(home if os.path.isdir(home) else "/")
        if folder:
            os.chdir(folder)
        for word in variables:
            name, _, value = word.partition("=")
            os.environ[name] = value
        os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
    except OSError as error:
        _write(2, "%s: %s\n" % (words[0], error.strerror))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _await_end(child: int, marker: str, pause: float) -> str:
    """How it ended, as one word."""
    heard = True
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            killed = os.WIFSIGNALED(status)
            return "S%d" % os.WTERMSIG(status) if killed else "E%d" % (status >> 8)
        if not signal.sigtimedwait([signal.SIGCHLD], pause) and heard:
            # Where there is no room, what is on its way is a sign of life.
            if select.select([], [2], [], 0)[1]:
                heard = _write(2, marker + "~\n")


def _write(stream: int, text: str) -> bool:
    """Whether anybody may read it."""
    try:
        os.write(stream, text.encode())
    except OSError:
        return False
    return True


if __name__ == "__main__":
    run_command()
