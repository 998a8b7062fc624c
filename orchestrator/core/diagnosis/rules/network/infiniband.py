"""InfiniBand and RoCE: what NCCL's IB transport and libibverbs say."""

from __future__ import annotations

from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Domain,
    LogRole,
    Rule,
    sign,
)

_QP = (
    r"ibv_modify_qp failed with (?:error )?(?P<error>(?:\d{1,3} )?(?:%s))"
    r"(?:.{0,40}? on dev (?P<hca>[\w.-]{1,40}:\d{1,3}))?"
    r"(?:.{0,120}?remote GID (?P<peer>[0-9a-fA-F:.]{2,60}))?"
)
_QP_DEFAULTS = {"hca": "an unnamed HCA", "peer": "its peer", "error": "no reason given"}
# With these the adapter refuses what is no memory of the host; a limit says ENOMEM.
_NO_PEER_MEMORY = r"(?:Bad address|Invalid argument|not supported|error (?:14|22|95)\b)"

RULES = (
    Rule(
        id="NCCL-IB-001",
        title="InfiniBand connection timed out",
        domain=Domain.FABRIC,
        cause="{who} got no answer from {peer} through {hca} ({error}): no path between the ports, "
        "as on a rail-only fabric, or a wrong or link-local GID",
        remedy="unset NCCL_IB_GID_INDEX (automatic since NCCL 2.21); on rail-only fabrics set "
        "NCCL_CROSS_NIC=0; then test the pair with ib_write_bw -d DEVICE PEER",
        advice=Advice.LOWER_RUNG,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign("ibv_modify_qp failed", _QP % r"110\b[ \w]{0,40}|Connection timed out"),
            sign("ibv_modify_qp failed", r"ibv_modify_qp failed with error (?P<error>110)\b"),
        ),
        defaults=_QP_DEFAULTS,
        references=("NCCL#2013", "NCCL#769", "nccl-tests#227"),
    ),
    Rule(
        id="NCCL-IB-002",
        title="InfiniBand address of another network, or HCA gone",
        domain=Domain.FABRIC,
        cause="{who} could not address {peer} through {hca} ({error}): the GID belongs to another "
        "subnet or is empty, or the HCA is gone",
        remedy="unset NCCL_IB_GID_INDEX; compare show_gids and ibv_devinfo on both nodes, and let "
        "NCCL_IB_HCA name only ports that are active there",
        advice=Advice.LOWER_RUNG,
        confidence=Confidence.CERTAIN,
        weight=90,
        signs=(
            sign(
                "ibv_modify_qp failed",
                _QP % r"(?:101|19|22|61)\b[ \w]{0,40}|Network is unreachable|No such device"
                r"|Invalid argument|No data available",
            ),
        ),
        defaults=_QP_DEFAULTS,
        references=("nccl-tests#185", "NCCL#925"),
    ),
    Rule(
        id="NCCL-IB-003",
        title="InfiniBand retries exceeded",
        domain=Domain.FABRIC,
        cause="{who} sent to {peer} through {hca} and got no acknowledgement (completion error "
        "12): no path if it happened at once, a link that flaps or loses packets if later",
        remedy="perfquery and ethtool -S on both ports (symbol errors, PFC, ECN), cables and "
        "switch port; raise NCCL_IB_TIMEOUT only on a fabric known to lose packets",
        advice=Advice.LOWER_RUNG,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign(
                "completion",
                r"Got completion(?: from peer (?P<peer>[^ ]{1,80}))? with (?:status=|error )"
                r"(?:IBV_WC_\w{1,40}\()?12\b"
                r"(?:.{0,200}? hca (?P<hca>[\w.-]{1,40}))?",
            ),
            sign("IBV_WC_RETRY_EXC_ERR"),
            sign(
                "ransport retry count exceeded",
                r"retry count exceeded(?: on (?P<hca>[\w.-]{1,40}(?::\d{1,3})?))?",
            ),
        ),
        defaults={"peer": "its peer", "hca": "an unnamed HCA"},
        references=("NCCL#426", "NCCL#902", "NCCL#1814", "pytorch#81628"),
    ),
    Rule(
        id="NCCL-IB-004",
        title="Memory may not be locked for InfiniBand",
        domain=Domain.HOST,
        cause="{who} could not register memory with the HCA: the limit of locked memory (memlock) "
        "is too low in the shell that started the ranks",
        remedy="memlock unlimited in /etc/security/limits.d, in sshd's and systemd's units "
        "(LimitMEMLOCK=infinity), docker --ulimit memlock=-1; check with: "
        "orchestrate exec -C CLUSTER -- sh -c 'ulimit -l'",
        advice=Advice.LOWER_RUNG,
        confidence=Confidence.CERTAIN,
        weight=85,
        signs=(
            sign("ibv_reg_mr", rf"ibv_reg_mr\w{{0,20}} failed(?!.{{0,40}}{_NO_PEER_MEMORY})"),
            sign("Cannot allocate memory", r"(?i:register) memory .{0,60}Cannot allocate memory"),
            sign(
                "failed with error Cannot allocate memory",
                r"Call to ibv_(?:create_qp|create_cq|alloc_pd) failed with error Cannot allocate",
                confidence=Confidence.LIKELY,  # or the adapter has no more of them
            ),
        ),
        references=("nccl-tests#206",),
    ),
    Rule(
        id="RDMA-REG-001",
        title="GPU memory cannot be registered for RDMA",
        domain=Domain.HOST,
        cause="{who} could not register memory with the RDMA adapter ({error}): memory of a GPU "
        "needs the driver's nvidia-peermem or DMA-BUF, and UCX its CUDA modules",
        remedy="modprobe nvidia-peermem, or a kernel and driver with DMA-BUF; ucx_info -d | grep "
        "cuda; NCCL_NET_GDR_LEVEL=LOC does without GPUDirect",
        advice=Advice.LOWER_RUNG,
        weight=84,
        signs=(
            sign(
                "ibv_reg_mr",
                rf"ibv_reg_mr\w{{0,20}} failed.{{0,40}}(?P<error>{_NO_PEER_MEMORY})",
            ),
            sign(
                "register memory",
                rf"ailed to register memory .{{0,80}}(?P<error>{_NO_PEER_MEMORY})",
            ),
            sign(
                "failed to register address",
                r"failed to register address .{0,40}"
                r"(?P<error>mem_type .{0,80}\(md supports: .{1,30}\))",
            ),
            sign("Couldn't register memory", r"(?P<error>Couldn't register memory.{0,60})"),
        ),
        defaults={"error": "no reason given"},
        references=("NCCL#1939", "Mooncake#281", "NIXL#1628"),
    ),
    Rule(
        id="NCCL-IB-005",
        title="GPUDirect RDMA is off",
        domain=Domain.HOST,
        cause="traffic of {who} takes the detour through host memory: GPUDirect RDMA is disabled "
        "for HCA {hca}",
        remedy="modprobe nvidia-peermem, or a kernel and driver with DMA-BUF; check OFED's version",
        role=LogRole.SLOW,
        advice=Advice.GO_ON,
        weight=60,
        signs=(
            sign(
                "GPU Direct RDMA Disabled",
                r"GPU Direct RDMA Disabled for (?:HCA \d{1,3} '?)?(?P<hca>[\w.-]{1,40})?",
            ),
        ),
        defaults={"hca": "?"},
        references=("NCCL#897", "NCCL#1343", "NCCL#1412", "NCCL#1537", "NCCL#1939"),
    ),
    Rule(
        id="NCCL-IB-006",
        title="TCP instead of InfiniBand",
        domain=Domain.FABRIC,
        cause="{who} uses TCP sockets between nodes: NCCL found no usable InfiniBand device",
        remedy="/dev/infiniband and rdma-core inside the container; ibv_devinfo must show active "
        "ports; NCCL_IB_HCA must match them, NCCL_IB_DISABLE must not be 1",
        role=LogRole.SLOW,
        advice=Advice.GO_ON,
        weight=60,
        signs=(
            sign("NET/IB : No device found"),
            sign("Failed to open libibverbs"),
            sign("NCCL_IB_DISABLE set by environment to 1"),
        ),
        references=("NCCL user guide: environment variables",),
    ),
    Rule(
        id="NCCL-IB-007",
        title="InfiniBand port went down",
        domain=Domain.FABRIC,
        cause="an InfiniBand port of {where} ({hca}) reported: {event}",
        remedy="ibstat and the switch's log for this port; exclude the node until the link is "
        "stable",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.LIKELY,
        weight=80,
        signs=(
            sign(
                "async",
                r"NET/IB : (?:(?P<hca>[\w.-]{1,40}):\d{1,3} )?(?:Got|async) .{0,20}?async "
                r"(?:fatal )?"
                r"(?:error )?event(?: on \w{1,10})? ?: (?P<event>port error)",
            ),
            sign(
                "mlx",
                r"mlx[45]_(?:core|ib)\b.{0,80}(?P<event>[Ll]ink down|Port: \d{1,2} Link DOWN)",
            ),
        ),
        defaults={"hca": "not named", "event": "port error"},
        explains=("NCCL-IB-003", "NCCL-IB-010"),
        references=("NCCL user guide: troubleshooting",),
    ),
    Rule(
        id="HOST-HCA-001",
        title="A network adapter died",
        domain=Domain.HARDWARE,
        cause="the network adapter {hca} of {where} stopped working ({detail})",
        remedy="dmesg -T and mlxfwreset or a power cycle of the node; update the adapter's "
        "firmware, replace it on repeat",
        advice=Advice.EXCLUDE_NODE,
        confidence=Confidence.CERTAIN,
        weight=88,
        signs=(
            sign(
                "mlx5_core ",
                r"mlx5_core (?P<hca>[\da-f:]{4,12}\.\d{1,2}):? .{0,60}(?P<detail>irisc not "
                r"responding"
                r"|device's health compromised|[Ff]atal error \d{0,4} ?detected|health poll failed"
                r"|firmware (?:fatal|internal) error)",
            ),
            sign("local catastrophic error", r"async .{0,40}(?P<detail>local catastrophic error)"),
            sign("IBV_EVENT_DEVICE_FATAL", r"(?P<detail>IBV_EVENT_DEVICE_FATAL)"),
            sign(
                "infiniband ",
                r"infiniband (?P<hca>[\w.-]{1,40}): (?P<detail>Failed to process command .{1,60})",
                confidence=Confidence.LIKELY,
            ),
        ),
        defaults={"hca": "(not named)", "detail": "fatal error"},
        references=("Linux: mlx5 health", "libibverbs: ibv_get_async_event"),
    ),
    Rule(
        id="NCCL-IB-008",
        title="Harmless warning of libibverbs",
        domain=Domain.HOST,
        cause="libibverbs on {where} mentions a driver for hardware that is not there",
        remedy="nothing; installing rdma-core's providers silences it",
        role=LogRole.HARMLESS,
        advice=Advice.GO_ON,
        weight=95,
        signs=(
            sign("libibverbs: Warning: couldn't load driver"),
            sign("libibverbs: Warning: couldn't open config directory"),
            sign("libibverbs: Warning: no userspace device-specific driver found"),
        ),
        references=("rdma-core",),
    ),
    Rule(
        id="NCCL-IB-009",
        title="InfiniBand connection refused by the driver",
        domain=Domain.FABRIC,
        cause="{who} could not set up an InfiniBand connection ({call} failed{error}); "
        "the line does not say which of path, GID, limit or device is at fault",
        remedy="NCCL_DEBUG=INFO shows the error number and both GIDs; meanwhile "
        "NCCL_IB_DISABLE=1 takes TCP",
        advice=Advice.LOWER_RUNG,
        weight=70,
        signs=(
            sign(
                "ibv_modify_qp failed",
                r"ibv_modify_qp failed(?: with(?: error)?(?P<error> .{1,60}))?",
            ),
            sign(
                "Call to ibv_",
                r"Call to (?P<call>ibv_create_(?:qp|cq)) failed(?P<error> with .{1,60})?",
            ),
        ),
        defaults={"error": "", "call": "ibv_modify_qp"},
        references=("NCCL#925", "NCCL#562"),
    ),
    Rule(
        id="NVSHMEM-001",
        title="NVSHMEM could not set up its transport",
        domain=Domain.FABRIC,
        cause="NVSHMEM on {where} could not set up a path to other GPUs ({detail})",
        remedy="IBGDA needs the driver option NVreg_EnableStreamMemOPs=1 (and PeerMappingOverride)"
        "; "
        "NVSHMEM_REMOTE_TRANSPORT=ibrc tries without; /dev/infiniband in the container",
        advice=Advice.LOWER_RUNG,
        weight=74,
        signs=(
            sign("init failed for transport", r"(?P<detail>init failed for transport: \w{1,20})"),
            sign("is not accessible, exiting", r"(?P<detail>Peer GPU \d{1,4} is not accessible)"),
            sign("building transport map failed", r"(?P<detail>building transport map failed)"),
        ),
        defaults={"detail": "transport"},
        references=("NVSHMEM", "DeepEP"),
    ),
    Rule(
        id="UCX-001",
        title="UCX reports an error",
        domain=Domain.FABRIC,
        cause="UCX on {where} reports an error: {detail}",
        remedy="UCX_TLS and UCX_NET_DEVICES must fit the node (ucx_info -d); UCX_TLS=tcp,self,sm "
        "tries without InfiniBand",
        role=LogRole.VAGUE,
        advice=Advice.LOWER_RUNG,
        weight=48,
        signs=(sign("UCX  ERROR", r"UCX  ERROR {1,4}(?P<detail>.{1,120})"),),
        defaults={"detail": "see the line"},
        consequence="saw UCX fail",
        references=("UCX",),
    ),
    Rule(
        id="NCCL-OFI-001",
        title="The libfabric plugin of NCCL failed",
        domain=Domain.FABRIC,
        cause="the OFI plugin of NCCL on {where} failed: {detail}",
        remedy="fi_info -p efa on the node; /dev/infiniband and the EFA packages in the container; "
        "FI_PROVIDER unset unless the cloud's own image sets it",
        advice=Advice.LOWER_RUNG,
        weight=72,
        signs=(
            sign("NET/OFI", r"NCCL WARN NET/OFI (?P<detail>.{1,120})"),
            sign("NET/OFI", r"^WARN\b.{0,120}NET/OFI (?P<detail>.{1,120})"),
        ),
        defaults={"detail": "see the line"},
        references=("aws-ofi-nccl",),
    ),
    Rule(
        id="NCCL-IB-010",
        title="An InfiniBand connection failed",
        domain=Domain.FABRIC,
        cause="{who} lost its InfiniBand connection to {peer} (completion error {error}): the "
        "other "
        "side ended or failed first, or refused the access",
        remedy="the log of the rank on the other side; its memlock limit and HCA; perfquery on "
        "both "
        "ports",
        role=LogRole.VAGUE,
        advice=Advice.LOWER_RUNG,
        weight=62,
        signs=(
            sign(
                "ot completion",
                r"[Gg]ot completion(?: from peer (?P<peer>[^ ]{1,80}))? with (?:status=|error )"
                r"(?:IBV_WC_\w{1,40}\()?(?P<error>\d{1,3})\b",
            ),
            sign(
                "ib_mlx5_log.c:",
                r"ib_mlx5_log\.c:\d{1,5} {1,4}(?:UCX {1,2}ERROR )?(?P<error>[A-Z][\w ]{4,60}) on ",
            ),
        ),
        defaults={"peer": "its peer", "error": "unknown"},
        consequence="lost an InfiniBand connection",
        references=("libibverbs: ibv_wc_status",),
    ),
)
