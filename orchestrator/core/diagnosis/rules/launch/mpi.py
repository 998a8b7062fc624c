"""Open MPI, MPICH and the process manager interface."""

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
        id="LAUNCH-MPI-001",
        title="mpirun finds too few slots",
        domain=Domain.LAUNCH,
        cause="mpirun was asked for more processes than its hosts have {places} ({detail})",
        remedy="slots=N for each host of the hostfile, or fewer processes; --oversubscribe starts "
        "them all the same, --bind-to none leaves them to the kernel",
        confidence=Confidence.CERTAIN,
        weight=84,
        signs=(
            sign(
                "not enough slots available",
                r"(?P<detail>not enough slots available.{0,80})",
            ),
            sign(
                "All nodes which are allocated for this job are already filled",
                r"(?P<detail>All nodes .{1,60} are already filled)",
            ),
            sign(
                "would result in binding more",
                around=r"Node: {1,12}(?P<target>[\w.-]{1,120})",
                places="CPUs to bind to",
            ),
            sign("would result in binding more", places="CPUs to bind to"),
        ),
        defaults={"detail": "see the message", "places": "slots"},
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-002",
        title="mpirun could not start or keep its daemon on a node",
        domain=Domain.LAUNCH,
        cause="mpirun on {where} could not start its daemon on another node, or lost it "
        "({detail}); the line does not say which node or why",
        remedy="ssh HOST orted --version from the first node; the same Open MPI at the same path "
        "everywhere (mpirun --prefix), and all TCP ports open between the nodes",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        weight=45,
        signs=(
            sign(
                "unable to reliably start one or more daemons",
                r"(?P<detail>unable to reliably start one or more daemons)",
            ),
            sign(
                "lost communication with a remote daemon",
                r"(?P<detail>lost communication with a remote daemon)",
            ),
            sign(
                "died unexpectedly with status",
                r"A daemon .{0,40}(?P<detail>died unexpectedly with status \d{1,3})",
            ),
            sign("No OOB path to target", r"(?P<detail>No OOB path to target)"),
            sign(
                "does not know how to route a message",
                r"(?P<detail>does not know how to route a message)",
            ),
            sign(
                "An internal error has occurred in",
                r"(?P<detail>internal error) has occ.{0,20}RTE",
            ),
            sign("RTE_ERROR_LOG", r"RTE_ERROR_LOG: (?P<detail>.{1,80})"),
            sign("PMIX ERROR", r"PMIX ERROR: (?P<detail>.{1,80}?)(?: in file|$)"),
        ),
        defaults={"detail": "daemon"},
        consequence="could not start or keep a daemon",
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-006",
        title="Open MPI finds no usable transport",
        domain=Domain.LAUNCH,
        cause="Open MPI on {where} could load no component of its framework {name}: a library of "
        "the transport is missing, or the device that was asked for is not there",
        remedy="ucx_info -d and ompi_info on that node; --mca pml ob1 --mca btl tcp,self runs "
        "without UCX",
        confidence=Confidence.CERTAIN,
        weight=70,
        signs=(
            sign(
                "No components were able to be opened in the",
                r"opened in the (?P<name>\w{1,20}) framework",
                around=r"Host: {1,20}(?P<target>[\w.-]{1,120})",
            ),
            sign(
                "No components were able to be opened in the",
                r"opened in the (?P<name>\w{1,20}) framework",
            ),
            sign("cannot be selected", r"PML (?P<name>\w{1,20}) cannot be selected"),
        ),
        defaults={"name": "pml"},
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-007",
        title="A call of MPI failed",
        domain=Domain.FABRIC,
        cause="a call of MPI failed on {where} ({detail}), and the line does not say why",
        remedy="the lines of UCX or of a transport above it; mpirun --mca pml_base_verbose 10",
        role=LogRole.VAGUE,
        advice=Advice.RETRY,
        weight=36,
        signs=(
            sign("mpi4py.MPI.Exception", r"mpi4py\.MPI\.Exception: (?P<detail>.{1,120})"),
            sign("MPI error", r"Failed:? (?P<detail>MPI error .{1,160})"),
        ),
        defaults={"detail": "no reason given"},
        consequence="had a failed call of MPI",
        references=("Open MPI", "mpi4py"),
    ),
    Rule(
        id="LAUNCH-MPI-003",
        title="Open MPI is not on the path of a remote shell",
        domain=Domain.LAUNCH,
        cause="{who} does not find {program}, the daemon of mpirun: its non-interactive shell does "
        "not have MPI on the path",
        remedy="mpirun --prefix DIR (or its absolute path), or PATH and LD_LIBRARY_PATH set at the "
        "top of ~/.bashrc on every node",
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign(
                "not found",
                r"(?P<program>orted|prted|hydra_pmi_proxy|hydra_bstrap_proxy): (?:command )?not f",
            ),
            sign(
                "No such file or directory",
                r"(?P<program>orted|prted): No such file",
                around=r"Permanently added '\[?(?P<target>[\w.:-]{1,80}?)\]?(?::\d{1,5})?' \(",
            ),
            sign(
                "No such file or directory",
                r"(?P<program>orted|prted|hydra_pmi_proxy|hydra_bstrap_proxy): No such file",
            ),
        ),
        defaults={"program": "orted"},
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-004",
        title="mpirun refuses to run as root",
        domain=Domain.LAUNCH,
        cause="mpirun on {where} refuses to run as root",
        remedy="another user; in a container --allow-run-as-root",
        confidence=Confidence.CERTAIN,
        weight=86,
        signs=(sign("attempt to run as root"),),
        references=("Open MPI",),
    ),
    Rule(
        id="LAUNCH-MPI-005",
        title="A rank called MPI_Abort, or MPI failed in it",
        domain=Domain.PROGRAM,
        cause="{who} ended the job: {detail}",
        remedy="the lines above it in that rank's log say why",
        # Neither says why: what a transport wrote before does.
        role=LogRole.VAGUE,
        weight=22,
        signs=(
            sign(
                "MPI_ABORT was invoked on rank",
                r"(?P<detail>MPI_ABORT was invoked) on rank (?P<rank>\d{1,6})",
            ),
            sign(
                "application called MPI_Abort", r"(?P<detail>application called MPI_Abort.{0,60})"
            ),
            sign("An error occurred in MPI_", r"(?P<detail>An error occurred in MPI_\w{1,40})"),
            sign("Fatal error in ", r"(?P<detail>Fatal error in P?MPI_\w{1,40}.{0,80})"),
        ),
        defaults={"detail": "MPI_Abort"},
        consequence="ended in a failed call of MPI",
        references=("MPI",),
    ),
)
