"""``kubernetes``: the nodes are pods that are made for the run, and removed with it.

Their ranks are started as on any other node: what ``auto`` takes. So the record has no processes of
its own. ``core/kubernetes/run_pods.py`` says what is made; ``parsing/inputs/node_makers.py`` puts
it in the place of the inventory's nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.launchers.launcher import Launcher
from orchestrator.core.launchers.launcher_option import LauncherOption, PassOn
from orchestrator.core.launchers.plain import plan_direct

NAME = "kubernetes"
IMAGE = "image"
# By the key of a word that is passed on: metavar, help, and whether it may be given repeatedly.
OPTIONS: Mapping[str, tuple[str, str, bool]] = {
    IMAGE: ("IMAGE", "What pods run, with Python; implies --launcher kubernetes.", False),
    "python": ("PATH", "The image's Python.  [default: python3]", False),
    "context": ("NAME", "Of the kubeconfig.  [default: the current one]", False),
    "namespace": ("NAME", "Where pods are made.  [default: the context's]", False),
    "queue": ("NAME", "Kueue's LocalQueue to wait in.", False),
    "resource": (
        "NAME=QUANTITY",
        "What each pod asks for besides GPUs: cpu=32, memory=200Gi, rdma/hca=1. Repeatable.",
        True,
    ),
    "selector": ("KEY=VALUE", "A label that machines must have. Repeatable.", True),
    "toleration": (
        "KEY[=VALUE][:EFFECT]",
        "A taint of machines that pods put up with. Repeatable.",
        True,
    ),
    "pull-secret": ("NAME", "Secret with which the image is pulled.", False),
    "claim": ("NAME", "PersistentVolumeClaim that keeps what nodes keep.", False),
    "network": ("pod|host", "host: pods use the network of their machine.", False),
    "idle": ("SECONDS", "A pod ends after this long without ranks and coordinator.", False),
}


def _passed_on(key: str) -> PassOn:
    def pass_on(values: Sequence[str], _: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(f"{key}={value}" for value in values)

    return pass_on


def pod_words(options: Sequence[str], key: str) -> tuple[str, ...]:
    """What was given for ``key``, in the words that were passed on."""
    start = f"{key}="
    return tuple(word.removeprefix(start) for word in options if word.startswith(start))


KUBERNETES = Launcher(
    name=NAME,
    processes=plan_direct,
    makes_nodes=True,
    containable=True,
    options=tuple(
        LauncherOption(
            flag=f"--pod-{key}",
            name=f"pod_{key.replace('-', '_')}",
            metavar=metavar,
            help=text,
            # Checked with all others of them, where the nodes become pods.
            find_misuse=lambda _: None,
            pass_on=_passed_on(key),
            repeatable=repeatable,
            implies=key == IMAGE,
        )
        for key, (metavar, text, repeatable) in OPTIONS.items()
    ),
)
