"""The first text that runs on a node: hands over to the agent if it is there, in a place that
nobody else can have touched. In every other case the rest of the start travels, too, and looks
closer (``bootstrap.py``): most starts need none of it, and compiling it takes its time.

Imports nothing of this package, and compiles on Python 3.6 in order to say that that is too old.
"""

import os
import sys


def expand_workdir(workdir: str) -> str:
    """``workdir`` with ``$NAME`` and ``${NAME}`` replaced by what they are here.

    Raises ``ValueError`` for one that is not set or empty, and if no absolute path comes of it.
    """
    if "$" not in workdir:
        return workdir
    import pwd
    import re

    name = pwd.getpwuid(os.geteuid()).pw_name
    known = {"USER": name, "LOGNAME": name, "HOME": os.path.expanduser("~"), **os.environ}
    for variable in re.findall(r"\$\{?(\w+)", workdir):
        if not known.get(variable):
            raise ValueError("workdir %s: $%s is not set where commands run" % (workdir, variable))
    path = re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda m: known[m.group(1) or m.group(2)], workdir)
    if not path.startswith(("/", "~/")):
        raise ValueError("workdir %s: it becomes %s, not an absolute path" % (workdir, path))
    return path


def whole_mark(agent: str) -> str:
    """The file that is in the agent's directory if all of it was there since this boot: what was
    written just before a power cut may be lost, and is compared with the package that comes again.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return agent + "/.whole-" + file.read(36)
    except OSError:
        return agent + "/.whole-none"


def find_agent(workdir: str, digest: str) -> "tuple[str, str] | None":
    """The work directory and the agent's directory; None unless all is as we would leave it."""
    us = os.geteuid()
    path = os.path.abspath(os.path.join(os.path.expanduser("~"), os.path.expanduser(workdir)))
    if os.path.islink(path) and os.lstat(path).st_uid not in (0, us):
        return None
    workdir = os.path.realpath(path)
    own = [workdir + "/node", workdir + "/node/agents", workdir + "/node/agents/" + digest[:16]]
    for status in map(os.lstat, own):  # our directories, and mode 0700
        if status.st_uid != us or status.st_mode & 0o170077 != 0o040000:
            return None
    if not os.path.lexists(whole_mark(own[2])):
        return None
    above = workdir
    while above != "/":  # nobody else may put another directory in our place
        if os.lstat(above).st_mode & 0o1002 == 0o0002:
            return None
        above = os.path.dirname(above)
    return (workdir, own[2]) if os.lstat(workdir).st_uid in (0, us) else None


def start() -> None:
    """Read the header line, find the agent, run it; or answer one question and end."""
    stream = sys.stdin.buffer
    # A literal of Python, from whom this text came: the json module costs as much as all else here.
    header = eval(stream.readline(65536).decode(), {"__builtins__": {}})  # noqa: S307
    nonce = header["nonce"]
    here = None
    try:
        header["workdir"] = expand_workdir(header["workdir"])
        if sys.version_info >= (3, 8):
            here = find_agent(header["workdir"], header["digest"])
    except OSError:
        pass
    except ValueError as error:
        os.write(1, ("\n%s refused %s\n" % (nonce, error)).encode())
        return
    if here is None:
        os.write(1, ("\n%s need\n" % nonce).encode())
        scope: "dict[str, object]" = {}
        exec(stream.read(int(stream.readline(32))), scope)  # noqa: S102 - text of ours
        workdir, agent = scope["unpack_agent"](stream, header, whole_mark)  # type: ignore[operator]
    else:
        workdir, agent = here
    if here is not None or "glance" in header:
        os.write(1, ("\n%s have\n" % nonce).encode())
    sys.path.insert(0, agent)
    if here is not None and "offer" in header:
        from orchestrator.node_agent.oneshot_offer import answer_offer

        answer_offer(workdir + "/node", header["offer"])
    if "glance" in header:
        from orchestrator.node_agent.oneshot_probe import answer_probe

        answer_probe(workdir + "/node", header["glance"])
    else:
        from orchestrator.node_agent.main import serve_channel

        serve_channel(stream, nonce, workdir, agent, header.get("offer"))


if __name__ == "__main__":
    start()
