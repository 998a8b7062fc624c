"""What a node's agent is asked, made from what is planned and known."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.engine.node.requests import MAX_FACTS_BYTES, agent_facts

FACTS = Facts(node="n1", hostname="h", gpus=(Gpu(index=0, name="NVIDIA H200", uuid="GPU-0"),))


def test_ranks_are_given_what_the_probe_found() -> None:
    found = agent_facts(FACTS)

    assert found is not None
    assert (found["node"], found["gpus"][0]["uuid"]) == ("n1", "GPU-0")


def test_ranks_are_given_nothing_that_was_only_assumed() -> None:
    """Nor anything when nothing was asked yet."""
    assert agent_facts(replace(FACTS, assumed=True)) is None
    assert agent_facts(None) is None


def test_facts_that_do_not_fit_into_a_request_do_not_stop_it() -> None:
    assert agent_facts(replace(FACTS, notes=("x" * 1000,) * (MAX_FACTS_BYTES // 1000))) is None
