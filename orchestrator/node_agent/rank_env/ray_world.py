"""One node's share of a world of ranks under Ray; the node's supervisor starts it as launcher.

It starts the node's part of a Ray cluster (or finds one that is there), on the head it drives the
cluster, and it stays until the node's ranks have ended, however that comes about.
"""

from __future__ import annotations

import os
import signal
import sys
import time

sys.path.insert(0, os.path.abspath(__file__).rsplit(os.sep, 4)[0])

from orchestrator.node_agent.rank_env.ray_cluster import RayCluster, RayFailed, RayUnauthorised
from orchestrator.node_agent.rank_env.ray_driver import connected, drive, require_listener
from orchestrator.node_agent.rank_env.ray_options import Options
from orchestrator.node_agent.rank_env.ray_record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

BEGIN_S = 300.0  # the head places the actors once all nodes are there
LET_GO_S = 3600.0  # a grace may be as long
POLL_S = 0.05
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FAILED = 1
UNAUTHORISED = "OR-RAY-001"  # as core/launchers/ray.py has it


class Stopped(BaseException):
    """We were told to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class RayWorld:
    """This node's part, from start to end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._record = Record.of_attempt(os.environ["ORCHESTRATE_ATTEMPT_DIR"])
        self._signal = 0
        self._cluster: RayCluster | None = None
        if options.scratch is not None:
            self._cluster = RayCluster(
                options.cluster,
                head=options.head,
                resource=options.resource,
                scratch=options.scratch,
                check=self._heed,
            )

    def listen(self) -> None:
        """Only note a signal: Ray must be ended in good order."""
        for number in ENDING:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """The ranks hear of it at once: what Ray is doing just now may take longer than a grace."""
        self._signal = self._signal or number
        self._record.send(signal.SIGTERM)

    def _heed(self) -> None:
        if self._signal:
            raise Stopped(self._signal)

    def _check(self) -> None:
        self._heed()
        if self._cluster is not None:
            self._cluster.watch()

    def run(self) -> int:
        """The exit code: 0 if all ranks that this process answers for ended well."""
        self.listen()
        try:
            if self._cluster is not None:
                self._cluster.start()
            return self._drive() if self._options.drive else self._follow()
        except Stopped as stopped:
            return 128 + stopped.number
        except RayUnauthorised as failure:
            sys.stderr.write(f"{UNAUTHORISED}: {failure}\n")
            return FAILED
        except RayFailed as failure:
            sys.stderr.write(f"ray: {failure}\n")
            return FAILED
        finally:
            self._end_ranks()
            if self._cluster is not None:
                self._cluster.stop()

    def _drive(self) -> int:
        cluster = self._cluster
        address = cluster.address if cluster is not None else str(self._options.join)
        if cluster is None:
            require_listener(address)
        own_address = cluster.own_address if cluster is not None else None
        names = (os.environ["ORCHESTRATE_RUN_ID"], os.environ["ORCHESTRATE_ATTEMPT"])
        with connected(address, own_address, "orchestrate-{}-{}".format(*names)):
            self.listen()  # Ray has its own ideas
            return drive(self._options, self._check)

    def _follow(self) -> int:
        """Until whoever runs our ranks has come and gone."""
        deadline = time.monotonic() + BEGIN_S
        while not self._record.known:
            self._check()
            if time.monotonic() >= deadline:
                raise RayFailed(f"no actor came to this node within {BEGIN_S:.0f} s")
            time.sleep(POLL_S)
        while self._record.running:
            self._check()
            time.sleep(POLL_S)
        codes = self._record.codes
        return FAILED if codes is None or any(codes) else 0

    def _end_ranks(self) -> None:
        """Tell them to end, if they still run, and wait: the supervisor knows for how long."""
        deadline = time.monotonic() + LET_GO_S
        if self._record.running:
            self._record.send(signal.SIGTERM)
        while self._record.running and time.monotonic() < deadline:
            time.sleep(POLL_S)


def main() -> None:
    """Raises ``SystemExit`` with the exit code."""
    raise SystemExit(RayWorld(Options(sys.argv[1:])).run())


if __name__ == "__main__":
    main()
