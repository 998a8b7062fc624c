"""Every metric that is exported, declared once. Dashboards, alert rules and documents are held
against this table.

Labels are few and their values bounded, so that the number of series is: see the limits below.
"""

from __future__ import annotations

from orchestrator.core.monitoring.expert_metrics import EXPERT_METRICS
from orchestrator.core.monitoring.kept_metrics import KEPT_METRICS
from orchestrator.core.monitoring.metric import index_metrics
from orchestrator.core.monitoring.node_metrics import NODE_METRICS
from orchestrator.core.monitoring.run_metrics import RUN_METRICS
from orchestrator.core.monitoring.serving_metrics import SERVING_METRICS

SHOWN_S = 3600.0  # how long a run that ended keeps its series
MAX_RUNS = 64  # that are under way or ended within that time; the latest ones
MAX_NODES = 4096  # of one run
MAX_PAIRS = 200  # of a cluster and a workload
MAX_FIGURES = 32  # of one run
MAX_LAYERS = 256  # with experts, of one run

METRICS = index_metrics(
    (*RUN_METRICS, *NODE_METRICS, *KEPT_METRICS, *SERVING_METRICS, *EXPERT_METRICS)
)
