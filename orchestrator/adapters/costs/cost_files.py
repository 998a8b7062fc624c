"""Finds and reads the cost model's files: project folder, then home, then what is bundled.

hardware/gpus/ hardware/models/ hardware/links.yaml hardware/coefficients.yaml
hardware/calibrations/   what `model calibrate` wrote, JSON
studies/

Tables that were validated before are read from a cache, since plans want them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.adapters.cache.json_cache import JsonCache, code_stamp
from orchestrator.adapters.store.catalog import Catalog, CatalogEntry, read_bounded
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.codec import CodecError, from_json, to_json
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.costs.calibration import Calibration, CostTables, model_of
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.core.costs.predict import CostModel
from orchestrator.core.costs.study.study_model import Study

GPUS, MODELS, STUDIES = "hardware/gpus", "hardware/models", "studies"
LINKS, COEFFICIENTS = Path("hardware/links.yaml"), Path("hardware/coefficients.yaml")
CALIBRATIONS = Path("hardware/calibrations")
_READERS = ("parsing/inputs", "parsing/inputs/costs", "core/base", "core/costs")
# Of a model's hub name, what says only how it was trained or stored.
VARIANTS = ("-instruct", "-chat", "-base", "-it")


@dataclass(frozen=True, slots=True)
class CostFiles:
    """What names mean here."""

    catalog: Catalog
    layout: Layout

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> CostFiles:
        """Of the working directory, ``$ORCHESTRATE_HOME`` and what is bundled."""
        return cls(Catalog.from_environment(environ), Layout.from_environment(environ))

    def tables(self) -> CostTables:
        """GPUs, links and assumed coefficients. Raises :class:`UsageError` for an invalid file."""
        files = {entry.name: entry.path for entry in self.catalog.files(GPUS)}
        texts = {name: read_bounded(path) for name, path in files.items()}
        links, assumed = (read_bounded(self._path(name)) for name in (LINKS, COEFFICIENTS))
        key = {
            "texts": [
                hashlib.sha256(text).hexdigest() for text in (*texts.values(), links, assumed)
            ],
            "names": {name: str(path) for name, path in files.items()},
            "readers": code_stamp(_READERS),
        }
        cache = JsonCache(self.layout.cost_tables)
        kept = _tables_of(cache.find(key))
        if kept is None:
            kept = self._read_tables(files, texts, links, assumed)
            cache.keep(key, to_json(kept))
        return kept

    def _read_tables(
        self, files: Mapping[str, Path], texts: Mapping[str, bytes], links: bytes, assumed: bytes
    ) -> CostTables:
        from orchestrator.parsing.inputs.costs.coefficient_file import load_coefficients
        from orchestrator.parsing.inputs.costs.hardware_file import load_gpu, load_links

        return CostTables(
            gpus={name: load_gpu(texts[name], str(files[name])) for name in files},
            links=load_links(links, str(self._path(LINKS))),
            assumed=load_coefficients(assumed, str(self._path(COEFFICIENTS))),
        )

    def cost_model(self, tables: CostTables, gpu: str) -> CostModel:
        """Of a GPU by the name of its file, with its calibration if there is one."""
        return model_of(tables.gpus[gpu].device, tables.assumed, self.calibration(gpu))

    def calibration(self, gpu: str) -> Calibration | None:
        """What was fitted for a GPU by the name of its file; None where nothing was."""
        from orchestrator.parsing.inputs.costs.coefficient_file import load_calibration

        path = self._find(CALIBRATIONS / f"{gpu}.json")
        return None if path is None else load_calibration(read_bounded(path), str(path))

    def calibration_path(self, gpu: str) -> Path:
        """Where the user's own calibration is kept, which is found before a bundled one."""
        return self.layout.home / CALIBRATIONS / f"{gpu}.json"

    def shape(self, model: str) -> ModelShape:
        """Of a model file's name, a hub name, or a folder with a ``config.json``. Raises
        :class:`UsageError` with the nearest name.
        """
        from orchestrator.parsing.inputs.costs.hardware_file import load_model, shape_of_config

        config = Path(model).expanduser() / "config.json"
        if ("/" in model or model.startswith(".")) and config.is_file():
            return shape_of_config(read_bounded(config), str(config))
        entries = {entry.name: entry.path for entry in self.catalog.files(MODELS)}
        name = model_name(model)
        if name not in entries:
            raise UsageError(
                f"the sizes of model {model!r} are not known",
                id="model.shape",
                remedy=f"{did_you_mean(name, entries)}, or name a folder with its config.json",
            )
        return load_model(read_bounded(entries[name]), str(entries[name]))[0]

    def studies(self) -> list[CatalogEntry]:
        """Every study that a name reaches."""
        return self.catalog.files(STUDIES)

    def study(self, name: str) -> Study:
        """By name or path. Raises :class:`UsageError` with file and line."""
        from orchestrator.parsing.inputs.costs.study_file import load_study

        path = self.catalog.find_file(STUDIES, "study", name)
        tables = self.tables()
        return load_study(read_bounded(path), str(path), path.stem, tables.gpus, tables.links)

    def _path(self, name: Path) -> Path:
        found = self._find(name)
        if found is None:
            raise UsageError(f"{name} is missing", id="model.files", remedy="reinstall orchestrate")
        return found

    def _find(self, name: Path) -> Path | None:
        paths = (root / name for root in self.catalog.roots.values())
        return next((path for path in paths if path.is_file()), None)


def model_name(model: str) -> str:
    """A model file's name from a hub name: ``Qwen/Qwen2-7B-Instruct`` -> ``qwen2-7b``."""
    name = model.rstrip("/").rpartition("/")[2].lower()
    for variant in VARIANTS:
        name = name.removesuffix(variant)
    return name


def _tables_of(kept: Any) -> CostTables | None:
    try:
        found = from_json(CostTables, kept)
    except (CodecError, TypeError):
        return None
    assert isinstance(found, CostTables)
    return found


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Raises ``OSError``."""
    from orchestrator.adapters.store.atomic_files import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(calibration), indent=1, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())
