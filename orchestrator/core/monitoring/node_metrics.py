"""Metrics of nodes in a run. One GPU is never a label: a node has the sum or the extreme of its
GPUs, so that 1,000 nodes stay some ten thousand series.
"""

from __future__ import annotations

from orchestrator.core.monitoring.metric import MetricFamily, MetricKind

COUNTER = MetricKind.COUNTER
NODE = ("run", "node")

NODE_UP = MetricFamily(
    name="orchestrate_node_up",
    labels=NODE,
    help="1 while the node is well, 0 once it is lost or has failed.",
)
NODE_RANKS = MetricFamily(
    name="orchestrate_node_ranks", labels=NODE, help="Ranks that run on the node."
)
NODE_TOKENS = MetricFamily(
    name="orchestrate_node_tokens_per_second",
    labels=NODE,
    help="Tokens per second as the node's ranks last reported them, added up.",
)
NODE_GPUS = MetricFamily(name="orchestrate_node_gpus", labels=NODE, help="GPUs of the node.")
NODE_POWER = MetricFamily(
    name="orchestrate_node_gpu_power_watts",
    labels=NODE,
    help="Power of the node's GPUs, added up: live with --capture power, else as last probed.",
)
NODE_ENERGY = MetricFamily(
    name="orchestrate_node_gpu_energy_joules_total",
    kind=COUNTER,
    labels=NODE,
    help="Energy of the node's GPUs inside measured windows, by NVML.",
)
NODE_MEMORY = MetricFamily(
    name="orchestrate_node_gpu_memory_bytes",
    labels=NODE,
    help="Memory of the node's GPUs, added up.",
)
NODE_MEMORY_USED = MetricFamily(
    name="orchestrate_node_gpu_memory_used_bytes",
    labels=NODE,
    help="What is used of it.",
)
NODE_TEMPERATURE = MetricFamily(
    name="orchestrate_node_gpu_temperature_celsius",
    labels=NODE,
    help="Temperature of the node's hottest GPU.",
)
NODE_THROTTLED = MetricFamily(
    name="orchestrate_node_gpus_throttled",
    labels=("run", "node", "reason"),
    help="GPUs whose clocks are held down by heat or by power.",
)
NODE_ECC = MetricFamily(
    name="orchestrate_node_gpu_ecc_uncorrected_errors",
    labels=NODE,
    help="Uncorrected memory errors of the node's GPUs since their driver was loaded.",
)
NODE_XIDS = MetricFamily(
    name="orchestrate_node_gpu_xid_errors",
    labels=NODE,
    help="Errors (Xid) in the node's kernel log that speak against a card, not against a program.",
)
NODE_GPUS_LOST = MetricFamily(
    name="orchestrate_node_gpus_lost",
    labels=NODE,
    help="GPUs that the driver knows but cannot reach.",
)
NODE_NVLINK = MetricFamily(
    name="orchestrate_node_nvlink_payload_bytes_total",
    kind=COUNTER,
    labels=("run", "node", "direction"),
    help="Payload over NVLink since the driver was loaded, of a run that captures it.",
)
NODE_DISK_FREE = MetricFamily(
    name="orchestrate_node_disk_free_bytes",
    labels=NODE,
    help="Free space where the node works.",
)
NODE_CLOCK = MetricFamily(
    name="orchestrate_node_clock_offset_seconds",
    labels=NODE,
    help="The node's wall clock minus the coordinator's.",
)

NODE_METRICS = (
    NODE_UP,
    NODE_RANKS,
    NODE_TOKENS,
    NODE_GPUS,
    NODE_POWER,
    NODE_ENERGY,
    NODE_MEMORY,
    NODE_MEMORY_USED,
    NODE_TEMPERATURE,
    NODE_THROTTLED,
    NODE_ECC,
    NODE_XIDS,
    NODE_GPUS_LOST,
    NODE_NVLINK,
    NODE_DISK_FREE,
    NODE_CLOCK,
)
