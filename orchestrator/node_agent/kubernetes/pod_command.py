"""Runs one command in a pod, between words that say that it began and how it ended.

What kubectl says of a command's end is its own: a stream that broke may look like a success. So the
end is part of both streams. This text travels in the command line of kubectl exec: it imports
nothing of this package, and stays short.
"""

import base64
import os
import sys


def run_command() -> None:
    """``sys.argv``: a marker, the shared work directory, and in Base64, since what is between may
    change words that are not UTF-8: the directory or nothing, the number of variables, the
    variables and the command.
    """
    marker, work = sys.argv[1:3]
    packed = base64.urlsafe_b64decode("".join(sys.argv[3:]))
    folder, count, *words = map(os.fsdecode, packed.split(b"\0"))
    if os.path.isdir(work) and os.stat(work).st_uid == os.getuid():
        # An emptyDir is anybody's to write to; what is in it is not to be anybody's to replace.
        os.chmod(work, 0o1777)  # noqa: S103
    child = os.fork()
    if child:
        for number in (0, 1, 2):  # the pipes are the command's; their ends are kept apart
            os.set_inheritable(number, False)
        status = os.waitpid(child, 0)[1]
        how = "S%d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "E%d" % (status >> 8)
        for stream in (1, 2):
            os.write(stream, ("%s.%s\n" % (marker, how)).encode())
        sys.exit(0)
    os.setsid()
    for stream in (1, 2):
        os.write(stream, ("%s %d\n" % (marker, os.getpid())).encode())
    try:
        home = os.path.expanduser("~")
        os.chdir(home if os.path.isdir(home) else "/")
        if folder:
            os.chdir(folder)
        split = int(count)
        for word in words[:split]:
            name, _, value = word.partition("=")
            os.environ[name] = value
        os.execvp(words[split], words[split:])  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, ("%s: %s\n" % (words[int(count)], error.strerror)).encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    run_command()
