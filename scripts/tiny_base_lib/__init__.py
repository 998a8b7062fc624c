"""The small base model of the workload finetune: how it is made, and how that is checked.

The model itself is in workloads/finetune/model/tiny; nodes only load it.
"""

from __future__ import annotations
