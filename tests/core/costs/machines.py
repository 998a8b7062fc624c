"""Hardware and models as the bundled files say, for tests of the cost model."""

from __future__ import annotations

from functools import cache

from orchestrator.core.costs.hardware import FabricHardware, make_fabric
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.core.costs.predict import CostModel
from orchestrator.core.costs.tables import CostTables, model_of
from orchestrator.parsing.inputs.costs.coefficient_file import load_coefficients
from orchestrator.parsing.inputs.costs.hardware_file import load_gpu, load_links, load_model
from tests.architecture.source import ROOT

HARDWARE = ROOT / "hardware"


@cache
def tables() -> CostTables:
    """The bundled ones."""
    gpus = {
        path.stem: load_gpu(path.read_bytes(), path.name)
        for path in sorted((HARDWARE / "gpus").glob("*.yaml"))
    }
    links = load_links((HARDWARE / "links.yaml").read_bytes(), "links.yaml")
    text = (HARDWARE / "coefficients.yaml").read_bytes()
    return CostTables(gpus=gpus, links=links, assumed=load_coefficients(text, "coefficients.yaml"))


@cache
def assumed_model(gpu: str) -> CostModel:
    """Of a GPU for which nothing was measured."""
    return model_of(tables().gpus[gpu].device, tables().assumed, None)


def fabric(gpu: str, per_node: int = 8, network_gbit: float = 0.0) -> FabricHardware:
    """``network_gbit`` for each GPU joins nodes by InfiniBand."""
    network = "infiniband" if network_gbit else ""
    made = tables()
    return make_fabric(made.gpus[gpu], made.links, per_node, network, network_gbit * 1e9 / 8)


@cache
def shape(name: str) -> ModelShape:
    """A bundled model."""
    path = HARDWARE / "models" / f"{name}.yaml"
    return load_model(path.read_bytes(), path.name)
