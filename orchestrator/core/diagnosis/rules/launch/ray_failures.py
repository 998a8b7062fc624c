"""Ray: its head, its nodes, its resources."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_HOST = r"(?P<target>[\w.:-]{1,120}?)"

RULES = (
    Rule(
        id="RAY-GCS-001",
        title="Ray's head does not answer",
        domain=Domain.LAUNCH,
        cause="{who} cannot reach Ray's head (GCS) at {address}: it is not started, has ended, or "
        "a firewall is between",
        remedy="ray status on the head; gcs_server.out in its session folder says why it ended; "
        "the port must be open and Ray's version the same",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        weight=62,
        signs=(
            sign(
                "Failed to connect to GCS",
                r"Failed to connect to GCS(?: at address (?P<address>[\w.:-]{3,80}))?",
            ),
            sign(
                "Unable to connect to GCS",
                r"Unable to connect to GCS(?: at (?P<address>[\w.-]{1,80}:\d{1,5}))?",
            ),
            sign("waiting for GCS to become available"),
            sign("Couldn't reconnect to GCS server"),
            sign("current node timed out during startup"),
            sign("node registration may not be complete"),
            sign("Failed to get cluster ID from GCS"),
            sign("Failed to register worker to Raylet"),
            sign(
                "Could not find any running Ray instance",
                r"any running Ray instance(?:\. Please specify|(?: at (?P<address>[\w.:-]{3,80})"
                r")?)",
            ),
            sign(
                "Could not connect to the Ray",
                r"connect to the Ray \w{1,20}(?: at (?P<address>[\w.:/-]{3,80}))?",
            ),
        ),
        defaults={"address": "its address"},
        consequence="could not reach Ray's head",
        references=("Ray",),
    ),
    Rule(
        id="RAY-AUTH-001",
        title="The Ray cluster asks for a token",
        domain=Domain.LAUNCH,
        cause="the Ray cluster refused {who}: it asks for a token, and none or a wrong one was "
        "sent",
        remedy="--env RAY_AUTH_MODE=token --env RAY_AUTH_TOKEN=TOKEN (the cluster's is in "
        "~/.ray/auth_token of the user who started it)",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(
            sign("InvalidAuthToken"),
            sign("Invalid or missing authentication token"),
            sign(
                "authentication token", r"[Rr]ay.{0,120}(?:[Nn]o|[Ii]nvalid) authentication token"
            ),
        ),
        references=("Ray: token authentication",),
    ),
    Rule(
        id="RAY-RES-001",
        title="The Ray cluster does not have what is asked for",
        domain=Domain.LAUNCH,
        cause="no node of the Ray cluster can provide {resources}: the request waits for ever",
        remedy="ray status shows what nodes have; ask for no more GPUs or CPUs on one node than it "
        "has, and see that every node has joined",
        confidence=Confidence.LIKELY,
        weight=72,
        signs=(
            sign(
                "can fulfill resource request",
                r"can fulfill resource request (?P<resources>.{0,40}\{.{1,120}?\}\)?)",
            ),
            sign(
                "could not find a node type to satisfy the request",
                r"to satisfy the request: (?P<resources>\[.{1,120}?\])",
            ),
            sign(
                "creating a placement group of specs",
                r"placement group of specs for .{1,40}specs=(?P<resources>.{1,120}?)\. ",
            ),
            sign(
                "cannot be scheduled right now",
                r"requires (?P<resources>\{.{1,120}?\}) for (?:placement|execution)",
            ),
            sign("Cannot provide a placement group of"),
        ),
        defaults={"resources": "the resources asked for"},
        references=("Ray",),
    ),
    Rule(
        id="RAY-VER-001",
        title="Ray's nodes run different versions",
        domain=Domain.LAUNCH,
        cause="{who} runs another version of Ray or Python than the cluster it wants to join",
        remedy="the same Ray and the same Python on every node: pip install 'ray==VERSION'",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(sign("Version mismatch: The cluster was started with"),),
        references=("Ray",),
    ),
    Rule(
        id="RAY-STORE-001",
        title="Ray's object store is full",
        domain=Domain.HOST,
        cause="the object store of Ray on {where} is full ({detail})",
        remedy="ray memory shows who holds objects; fewer or smaller objects, more "
        "--object-store-memory, and a /dev/shm as large (docker --shm-size)",
        confidence=Confidence.CERTAIN,
        weight=80,
        signs=(
            sign("ObjectStoreFullError", r"(?P<detail>ObjectStoreFullError)"),
            sign("OutOfDiskError", r"(?P<detail>OutOfDiskError)"),
            sign("object store is full", r"(?P<detail>object store is full)"),
        ),
        defaults={"detail": "full"},
        references=("Ray",),
    ),
    Rule(
        id="RAY-SHM-001",
        title="Ray uses the disk instead of shared memory",
        domain=Domain.HOST,
        cause="Ray's object store on {where} lies on the disk: /dev/shm is too small ({detail})",
        remedy="docker --shm-size, at least 30 % of the memory",
        role=LogRole.SLOW,
        advice=Advice.GO_ON,
        weight=55,
        signs=(
            sign(
                "The object store is using",
                r"using /tmp instead of /dev/shm because /dev/shm has only (?P<detail>\d{1,15} "
                r"bytes)",
            ),
        ),
        defaults={"detail": "too small"},
        references=("Ray",),
    ),
    Rule(
        id="RAY-NODE-001",
        title="Ray lost a node",
        domain=Domain.HOST,
        cause="Ray lost the node {who}: its raylet does not answer any more",
        remedy="see whether that node is up and has memory left: dmesg -T, and raylet.out in the "
        "session folder there",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        weight=64,
        signs=(
            sign(
                "has been marked dead",
                rf"node with node id: .{{1,80}} and address: {_HOST} and node name",
            ),
            sign("missed too many heartbeats"),
            sign(
                "health check failed",
                r"node failed.{0,40}health check failed|due to health check failed",
            ),
            sign("Raylet is terminated"),
            sign("dead because its node has died"),
            sign("died because its node has died"),
        ),
        references=("Ray",),
    ),
    Rule(
        id="RAY-WORKER-001",
        title="Ray's workers end at their start",
        domain=Domain.LAUNCH,
        cause="worker processes of Ray on {where} ended before they could register",
        remedy="python-core-worker-*.log and worker-*.err in the session folder of that node; as a "
        "rule a package that does not import, or no memory or threads left",
        role=LogRole.FAILURE,
        advice=Advice.RETRY,
        weight=58,
        signs=(
            sign("have not registered within the timeout"),
            sign("The worker died unexpectedly while executing this task"),
        ),
        references=("Ray",),
    ),
    Rule(
        id="RAY-AGENT-001",
        title="Ray has no agent that accepts jobs",
        domain=Domain.LAUNCH,
        cause="Ray on {where} has no agent that could accept the job: it ended, or ray[default] is "
        "not installed on the nodes",
        remedy="pip install 'ray[default]' on every node, then dashboard_agent.log in the session "
        "folder",
        confidence=Confidence.CERTAIN,
        weight=72,
        signs=(sign("No available agent to submit job"),),
        references=("Ray", "OpenRLHF#1236"),
    ),
    Rule(
        id="RAY-ENV-001",
        title="Ray could not set up the runtime environment",
        domain=Domain.LAUNCH,
        cause="Ray on {where} could not set up the job's runtime environment ({detail})",
        remedy="runtime_env_setup-*.log in the session folder of that node holds the failed "
        "command, as a rule pip without a network or a path that exists on one node alone",
        confidence=Confidence.CERTAIN,
        weight=74,
        signs=(
            sign(
                "RuntimeEnvSetupError",
                r"RuntimeEnvSetupError: (?P<detail>.{1,160})",
            ),
            sign("Failed to set up runtime environment"),
        ),
        defaults={"detail": "see the log"},
        references=("Ray",),
    ),
)
