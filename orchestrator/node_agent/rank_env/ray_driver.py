"""Drives a Ray cluster: one actor on each node, spread strictly, that runs the node's ranks.

The actor brings nothing along but where to look: what is a node's own (directories, environment,
interpreter, program) it takes from the process that the node's supervisor started there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import time

from orchestrator.node_agent.rank_env.ray_cluster import RayFailed, RayUnauthorised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from orchestrator.node_agent.rank_env.ray_options import Driven, Options

PLACE_S = 120.0
ASK_S = 60.0
RELEASE_S = 10.0  # nodes that answer have long been told by then
POLL_S = 0.2
DIAL_S = 10.0
# An actor runs one method at a time unless it has more threads: `release` must not wait for `run`.
METHODS_AT_ONCE = 2
PROGRAM = "/ray_world.py"
# Ray's client says so on standard error alone; what it raises is that it could not connect.
NO_TOKEN = b"InvalidAuthToken"
MAX_SAID_BYTES = 1024 * 1024


class NodeActor:
    """On one node: finds the node's own process, and runs its ranks beside it.

    It travels by value, so it names nothing outside of itself but the standard library.
    """

    def __init__(self, run: str, attempt: str, node: str, meeting: str) -> None:
        self._markers = {
            f"ORCHESTRATE_RUN_ID={run}".encode(),
            f"ORCHESTRATE_ATTEMPT={attempt}".encode(),
            f"ORCHESTRATE_NODE={node}".encode(),
        }
        self._meeting = meeting
        self._runner: subprocess.Popen[bytes] | None = None

    def free_port(self, host: str) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            return int(listener.getsockname()[1])

    def gpus(self) -> list[str]:
        """What Ray gave to this actor."""
        import ray

        return [str(gpu) for gpu in ray.get_gpu_ids()]

    def run(self, master_port: int) -> list[int] | None:
        """The exit codes of the node's ranks; None if whoever ran them was killed.

        Raises ``LookupError`` where the node's own process cannot be seen.
        """
        import json

        pid, words, environment = self._own_process()
        at = next(i for i, word in enumerate(words) if word.endswith(PROGRAM))
        runner = words[at][: -len(PROGRAM)] + "/ray_ranks.py"
        more = [f"--like={pid}", f"--master-port={master_port}"]
        with open(environment["ORCHESTRATE_ATTEMPT_DIR"] + "/logs/launcher.err", "ab") as log:
            self._runner = subprocess.Popen(
                [*words[:at], runner, *more, *words[at + 1 :]],
                env={k: v for k, v in environment.items() if not k.startswith("RAY_AUTH_")},
                cwd=os.readlink(f"/proc/{pid}/cwd"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._runner.stdout is not None
        line = self._runner.stdout.readline()
        return list(json.loads(line)) if line else None

    def release(self) -> None:
        """The world is over: whoever ran the ranks may leave."""
        if self._runner is not None and self._runner.stdin is not None:
            self._runner.stdin.close()

    def _own_process(self) -> tuple[int, list[str], dict[str, str]]:
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{name}").st_uid != os.geteuid():
                    continue
                with open(f"/proc/{name}/environ", "rb") as file:
                    environment = [os.fsdecode(pair) for pair in file.read().split(b"\0")]
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
            except OSError:
                continue
            if self._is_ours(environment, words):
                pairs = (pair.partition("=") for pair in environment if "=" in pair)
                return int(name), words, {key: value for key, _, value in pairs}
        raise LookupError(
            f"Ray's worker on {socket.gethostname()} does not see the run's own process there: "
            "both must run on the same machine, as the same user, in the same container"
        )

    def _is_ours(self, environment: list[str], words: list[str]) -> bool:
        if not any(word.endswith(PROGRAM) for word in words[:8]):
            return False
        if self._meeting and f"--meeting={self._meeting}" not in words:
            return False
        return self._markers <= {os.fsencode(pair) for pair in environment}


@contextlib.contextmanager
def connected(address: str, own_address: str | None, namespace: str) -> Iterator[None]:
    """Inside, this process is a driver of the cluster at ``address``. Raises :class:`RayFailed`."""
    import ray

    where: dict[str, Any] = {"_node_ip_address": own_address} if own_address else {}
    began = _said_so_far()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        ray.init(
            address,
            namespace=namespace,
            log_to_driver=False,
            configure_logging=False,
            **where,
        )
    except Exception as error:  # Ray raises many kinds; each ends this attempt
        if type(error).__name__ == "AuthenticationError" or NO_TOKEN in _said_since(began):
            why = "asks for a token, and none or a wrong one was given"
            raise RayUnauthorised(f"the Ray cluster at {address} {why}") from error
        raise RayFailed(f"no Ray cluster answers at {address}: {_brief(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def require_listener(address: str) -> None:
    """That something listens there. Ray itself would try for minutes, also where nothing ever did.
    Raises :class:`RayFailed`.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=DIAL_S):
            return
    except OSError as error:
        raise RayFailed(f"no Ray cluster answers at {address}: {_brief(error)}") from error


def _said_so_far() -> int:
    """How long the log that standard error is has become."""
    return os.fstat(2).st_size


def _said_since(start: int) -> bytes:
    """What came to that log since; nothing if it is no file."""
    if not stat.S_ISREG(os.fstat(2).st_mode):
        return b""
    try:
        with open("/proc/self/fd/2", "rb") as log:
            log.seek(start)
            return log.read(MAX_SAID_BYTES)
    except OSError:
        return b""


def drive(options: Options, check: Callable[[], None]) -> int:
    """Run the ranks of all nodes to their end; 0 if all went well. ``check`` raises to break off.

    Raises :class:`RayFailed`.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([_bundle(options, node) for node in options.drive], "STRICT_SPREAD")
    try:
        _wait_for_place(group, options, check)
        actors = _actors(options, group)
        port = _master_port(options, actors, check)
        _check_gpus(options, actors, check)
        code = _watch(options, {actor.run.remote(port): node.name for node, actor in actors}, check)
        _release(actors, check)
        return code
    finally:
        remove_placement_group(group)


def _bundle(options: Options, node: Driven) -> dict[str, float]:
    """What an actor takes of its node: what Ray knows it by and, in a cluster that others use, a
    core and the GPUs of the plan.
    """
    if options.join is None:
        return {node.known_by[0]: 1.0}
    gpus = {"GPU": float(len(node.gpus))} if node.gpus else {}
    return {_resource_of(node): 0.001, "CPU": 1.0, **gpus}


def _resource_of(node: Driven) -> str:
    """Ray's own resource for the node in a cluster that was there before."""
    import ray

    known = {n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}
    for address in node.known_by:
        if address in known:
            return f"node:{address}"
    told = ", ".join(node.known_by) or "no address known"
    found = ", ".join(sorted(known))
    raise RayFailed(f"{node.name} ({told}) is no node of that Ray cluster; it has {found}")


def _wait_for_place(group: Any, options: Options, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + PLACE_S
    while not group.wait(POLL_S):
        check()
        if time.monotonic() >= deadline:
            names = ", ".join(node.name for node in options.drive)
            raise RayFailed(f"Ray found no place for an actor on each of {names}; {_missing()}")


def _missing() -> str:
    import ray

    there = [f"{n['NodeManagerAddress']} {n['Resources']}" for n in ray.nodes() if n["Alive"]]
    return f"within {PLACE_S:.0f} s; it has " + "; ".join(there)


def _actors(options: Options, group: Any) -> list[tuple[Driven, Any]]:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    run, attempt = os.environ["ORCHESTRATE_RUN_ID"], os.environ["ORCHESTRATE_ATTEMPT"]
    shared = options.join is not None
    actors = []
    for index, node in enumerate(options.drive):
        actor = ray.remote(NodeActor).options(
            num_cpus=1 if shared else 0,
            num_gpus=len(node.gpus) if shared else 0,
            max_concurrency=METHODS_AT_ONCE,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=index
            ),
        )
        actors.append((node, actor.remote(run, attempt, node.name, options.meeting)))
    return actors


def _master_port(
    options: Options, actors: list[tuple[Driven, Any]], check: Callable[[], None]
) -> int:
    """Where the ranks meet: free on the first one's node. In a cluster of the run's own the port
    that all nodes proved to reach is Ray's; else it is theirs.
    """
    if options.master is None:
        return 0
    if options.join is not None and options.meeting:
        return int(options.meeting.rpartition(":")[2])
    head, actor = actors[0]
    return int(_answer(head, actor.free_port.remote(options.master), check))


def _check_gpus(
    options: Options, actors: list[tuple[Driven, Any]], check: Callable[[], None]
) -> None:
    """The plan's GPUs are those that Ray gave us, or another job of that cluster has them."""
    for node, actor in actors if options.join is not None else ():
        given = set(_answer(node, actor.gpus.remote(), check)) if node.gpus else set()
        if all(map(str.isdigit, given)) and given != node.gpus:
            ours, theirs = sorted(node.gpus), sorted(given)
            raise RayFailed(f"{node.name}: the plan has GPUs {ours}, but Ray gave {theirs}")


def _answer(node: Driven, reference: Any, check: Callable[[], None]) -> Any:
    """What the node's actor answers. Raises :class:`RayFailed`."""
    import ray

    if not _all_ready([reference], ASK_S, check):
        raise RayFailed(f"{node.name}: its Ray actor did not answer within {ASK_S:.0f} s")
    try:
        return ray.get(reference)
    except Exception as error:  # whatever Ray says of an actor that is gone
        raise RayFailed(f"{node.name}: its Ray actor failed: {_brief(error)}") from error


def _all_ready(references: list[Any], within_s: float, check: Callable[[], None]) -> bool:
    """Whether all of them have a value, or an error, in time."""
    import ray

    deadline = time.monotonic() + within_s
    while len(ray.wait(references, num_returns=len(references), timeout=POLL_S)[0]) < len(
        references
    ):
        check()
        if time.monotonic() >= deadline:
            return False
    return True


def _release(actors: list[tuple[Driven, Any]], check: Callable[[], None]) -> None:
    """Whoever runs ranks may leave; ranks that still run are asked to end, on all nodes at once.

    A node that cannot be reached is not waited for: what it runs ends with its actor.
    """
    _all_ready([actor.release.remote() for _, actor in actors], RELEASE_S, check)


def _watch(options: Options, running: dict[Any, str], check: Callable[[], None]) -> int:
    """Until all have ended or, unless they are independent, one has failed."""
    import ray

    code = 0
    while running:
        check()
        done, _ = ray.wait(list(running), timeout=POLL_S)
        for reference in done:
            name = running.pop(reference)
            if _failed(name, reference):
                code = 1
                if not options.independent:
                    return code
    return code


def _failed(name: str, reference: Any) -> bool:
    import ray

    try:
        codes = ray.get(reference)
    except Exception as error:  # noqa: BLE001 - whatever Ray says of an actor that is gone
        sys.stderr.write(f"{name}: its Ray actor failed: {_brief(error)}\n")
        return True
    return codes is None or any(codes)


def _brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join(lines[-2:]) or type(error).__name__
