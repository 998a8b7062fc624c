"""How ranks find each other: torch's store and torchrun's rendezvous."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

RULES = (
    Rule(
        id="TORCH-RDZV-001",
        title="Not all ranks came",
        domain=Domain.LAUNCH,
        cause="{who} waited {seconds} s for the others, and only {joined} of {wanted} came: a rank "
        "was not started, or cannot reach MASTER_ADDR and MASTER_PORT",
        remedy="start every node (orchestrate does, and proves the port first); check "
        "MASTER_ADDR, MASTER_PORT and WORLD_SIZE, and TCP to that port from each node",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=75,
        signs=(
            sign(
                "waiting for clients",
                r"Timed out after (?P<seconds>\d{1,7}) seconds waiting for clients\. "
                r"(?P<joined>\d{1,6})/(?P<wanted>\d{1,6}) clients joined",
            ),
            sign(
                "store based barrier",
                r"store based barrier on rank: \d{1,6}.{1,80}world_size=(?P<wanted>\d{1,6}), "
                r"worker_count=(?P<joined>\d{1,6})(?:, timeout=(?P<seconds>[\d:]{4,12}))?",
            ),
            sign(
                "store based barrier to initialize process group",
                r"world_size=(?P<wanted>\d{1,6}), worker_count=(?P<joined>\d{1,6})",
            ),
            sign(
                "waiting for workers",
                r"Timed out after (?P<seconds>\d{1,7}) seconds waiting for workers\. "
                r"(?P<joined>\d{1,6})/(?P<wanted>\d{1,6}) workers joined",
            ),
        ),
        defaults={"seconds": "?", "joined": "?", "wanted": "?"},
        consequence="waited in vain for others to join",
        references=("pytorch#111805", "OpenRLHF#1040"),
    ),
    Rule(
        id="TORCH-RDZV-002",
        title="The rendezvous cannot be reached",
        domain=Domain.LAUNCH,
        cause="torchrun on {where} could not talk to the rendezvous: its endpoint is not reachable "
        "from here, or the node has several interfaces and took the wrong one",
        remedy="--rdzv-endpoint with an address that every node routes to, and --local-addr on "
        "nodes with several interfaces",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        weight=65,
        signs=(
            sign("RendezvousConnectionError", r"^(?!.{0,200}keep-alive heartbeat)"),
            sign("DistStoreError: Socket Timeout", frames=r"rendezvous_backend\.py"),
            sign("EtcdConnectionFailed"),
            sign("The connection to the C10d store has failed"),
        ),
        consequence="could not talk to the rendezvous",
        references=("pytorch#107021", "pytorch#64926"),
    ),
    Rule(
        id="TORCH-RDZV-003",
        title="The port is taken",
        domain=Domain.LAUNCH,
        cause="the port {port} on {where} is in use already: by a run that was left "
        "behind, or by a second one with the same default",
        remedy="another --master-port (orchestrate chooses a free one on the head); ss -ltnp shows "
        "who listens",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=70,
        signs=(
            sign(
                "EADDRINUSE",
                r"(?:port: (?P<port>\d{1,5}).{0,120})?EADDRINUSE",
            ),
            sign(
                " already in use",
                r"(?:\[[^\]]{0,60}\]:(?P<port>\d{1,5}).{0,60})?(?:Address|address) already in use",
            ),
            sign(
                "is already allocated",
                r"Bind for \S{1,60}:(?P<port>\d{1,5}) failed: port is already",
            ),
            sign("is already in use", r"[Pp]ort:? (?P<port>\d{1,5}) is already in use"),
            sign(
                "port",
                r"[Pp]ort:? ['`]?(?P<port>\d{1,5})['`]?,? (?:but another process is utilizing it"
                r"|(?:is|was) (?:occupied|taken|not available|being used)|is used by)",
            ),
        ),
        defaults={"port": "it wants"},
        references=("pytorch#126510", "pytorch#85604", "torchtune#1025"),
    ),
    Rule(
        id="TORCH-RDZV-004",
        title="The master's name does not resolve",
        domain=Domain.LAUNCH,
        cause="{who} cannot resolve {peer}",
        remedy="MASTER_ADDR or --rdzv-endpoint as an IP address, or the name in /etc/hosts of "
        "every node",
        advice=Advice.RETRY,
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign(
                "cannot be retrieved (gai error",
                r"network addresses of \((?P<peer>[^,)]{1,120}), \d{1,5}\) cannot be retrieved",
            ),
            sign("can't resolve", r"can't resolve '(?P<peer>[\w.-]{1,120})'"),
            sign("server can't find", r"server can't find (?P<peer>[\w.-]{1,120}?): NXDOMAIN"),
            sign(
                "could not be resolved", r"hostname (?P<peer>[\w.-]{1,120}) could not be resolved"
            ),
            sign("failed to resolve", r"failed to resolve host(?:name)? '?(?P<peer>[\w.-]{1,120})"),
            sign("host not found: Name or service not known"),
        ),
        defaults={"peer": "the master's name"},
        references=("pytorch#107021",),
    ),
    Rule(
        id="TORCH-RDZV-005",
        title="Nobody listens at the master's address",
        domain=Domain.LAUNCH,
        cause="{who} could not connect to {peer} for {seconds}: rank 0 is not started or ended "
        "first, or a firewall is between",
        remedy="see the log of rank 0; nc -vz MASTER_ADDR MASTER_PORT from this node",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=70,
        signs=(
            sign(
                "client socket has timed out",
                r"client socket has timed out after (?P<seconds>\d{1,9} ?m?s) while trying to "
                r"connect "
                r"to \((?P<peer>[^)]{1,120})\)",
            ),
            sign(
                "connect() timed out",
                r"connect\(\) timed out\. Original timeout was (?P<seconds>\d{1,9} ms)",
            ),
            sign(
                "failed to connect to any network address",
                r"failed to connect to any network address of \((?P<peer>[^)]{1,120})\)",
            ),
        ),
        defaults={"peer": "the master", "seconds": "its whole time-out"},
        consequence="could not reach rank 0",
        references=("pytorch: TCPStore",),
    ),
    Rule(
        id="TORCH-RDZV-006",
        title="Harmless attempts of torch's sockets",
        domain=Domain.LAUNCH,
        cause="a socket of {who} tries one address after the other; what counts is how that ends",
        remedy="nothing to do",
        role=LogRole.HARMLESS,
        advice=Advice.GO_ON,
        weight=72,
        signs=(
            sign(
                "client socket has failed to connect to ",
                r"failed to connect to (?!any ).{1,160}errno",
            ),
            sign(
                "server socket",
                r"^(?:\[c10d\] )?The (?:IPv\d )?server socket (?:cannot be initialized|has failed "
                r"to "
                r"(?:bind|listen)(?! on any))",
            ),
        ),
        references=("pytorch: TCPStore",),
    ),
    Rule(
        id="TORCH-RDZV-007",
        title="The store went away",
        domain=Domain.PROGRAM,
        cause="{who} lost torch's store: rank 0, which serves it, ended first",
        remedy="look at the log of rank 0",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=55,
        signs=(
            sign("recvValue failed"),
            sign("sendBytes failed"),
            sign("recvBytes failed"),
            sign("TCPStore", r"TCPStore.{0,120}(?:Broken pipe|Connection reset by peer)"),
            sign(
                "DistNetworkError",
                r"DistNetworkError: (?:Connection reset|Broken pipe|[Ff]ailed to recv)",
            ),
            sign("TCPStore server has shut down"),
            # Who sends these had joined: the rendezvous was there, and is not any more.
            sign(
                "failed to send a keep-alive heartbeat",
                r"has failed to send a keep-alive heartbeat to the rendezvous .{0,120}"
                r"RendezvousConnectionError",
            ),
            sign("wait timeout after", r"wait timeout after \d{1,9} ?ms, keys:"),
            sign("DistStoreError: Socket Timeout"),
        ),
        consequence="lost torch's store or timed out at it",
        references=("pytorch: TCPStore",),
    ),
    Rule(
        id="TORCH-RDZV-008",
        title="Another rank did not set up NCCL",
        domain=Domain.PROGRAM,
        cause="{who} waited for rank {other} to set up NCCL ({error}): that rank ended, hangs, or "
        "came late",
        remedy="look at the log of rank {other}; a longer timeout= of init_process_group only "
        "where "
        "it is known to take long",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=62,
        signs=(
            sign(
                "is setting up NCCL communicator",
                r"\[(?P<rank>\d{1,6})\] is setting up NCCL communicator and retr\w{1,8} "
                r"ncclUniqueId from \[(?P<other>\d{1,6})\].{0,80}got error: (?P<error>[\w ]{1,60})",
            ),
        ),
        defaults={"other": "0", "error": "no answer"},
        consequence="waited for another rank to set up NCCL",
        references=("NCCL#708", "pytorch#82091"),
    ),
    Rule(
        id="TORCH-RDZV-009",
        title="The elastic rendezvous is closed",
        domain=Domain.LAUNCH,
        cause="{who} may not join the elastic rendezvous any more: another agent has ended or left "
        "it, which closes it for all",
        remedy="look for the agent that ended first; start all agents again with a new --rdzv-id",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=64,
        signs=(
            sign("RendezvousClosedError"),
            sign("rendezvous", r"rendezvous '?[\w.-]{0,80}'? ?(?:is closed|has been closed)"),
        ),
        consequence="found the rendezvous closed",
        references=("torch.distributed.elastic",),
    ),
    Rule(
        id="TORCH-RDZV-010",
        title="Too few nodes joined the rendezvous",
        domain=Domain.LAUNCH,
        cause="torchrun on {where} waited in vain for other nodes to join the rendezvous: one was "
        "not started, ended first, or cannot reach the endpoint",
        remedy="start torchrun on every node with the same --nnodes, --rdzv-id and --rdzv-endpoint",
        role=LogRole.VICTIM,
        advice=Advice.RETRY,
        weight=66,
        signs=(sign("RendezvousTimeoutError"),),
        consequence="waited in vain for others to join",
        references=("torch.distributed.elastic",),
    ),
)
