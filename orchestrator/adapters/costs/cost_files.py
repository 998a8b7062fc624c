"""Finds and reads the cost model's files: project folder, then home, then what is bundled.

hardware/gpus/ hardware/models/ hardware/links.yaml hardware/coefficients.yaml
hardware/calibrations/   what `model calibrate` wrote, JSON
studies/

Tables that were validated before are read from a cache, since plans want them. Their classes are
imported when they are read: plans without GPUs want none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.cache.json_cache import JsonCache, code_stamp
from orchestrator.adapters.catalog.catalog import Catalog, CatalogEntry, read_bounded
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.codec import CodecError, from_json, to_json
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean

if TYPE_CHECKING:
    from orchestrator.core.costs.model_shape import ModelShape
    from orchestrator.core.costs.predict import CostModel
    from orchestrator.core.costs.study.study_model import Study
    from orchestrator.core.costs.tables import Calibration, CostTables

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
        """GPUs, models, links, assumed coefficients. Raises :class:`UsageError` for an invalid
        file.
        """
        files = [entry.path for folder in (GPUS, MODELS) for entry in self.catalog.files(folder)]
        files += [self._path(LINKS), self._path(COEFFICIENTS)]
        texts = {str(path): read_bounded(path) for path in files}
        key = {
            "texts": {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()},
            "readers": code_stamp(_READERS),
        }
        cache = JsonCache(self.layout.cost_tables)
        kept = _tables_of(cache.find(key))
        if kept is None:
            kept = self._read_tables(texts)
            cache.keep(key, to_json(kept))
        return kept

    def _read_tables(self, texts: Mapping[str, bytes]) -> CostTables:
        from orchestrator.core.costs.tables import CostTables
        from orchestrator.parsing.inputs.costs.coefficient_file import load_coefficients
        from orchestrator.parsing.inputs.costs.hardware_file import load_gpu, load_links, load_model

        gpus, models = (
            {entry.name: str(entry.path) for entry in self.catalog.files(folder)}
            for folder in (GPUS, MODELS)
        )
        links, assumed = (str(self._path(name)) for name in (LINKS, COEFFICIENTS))
        return CostTables(
            gpus={name: load_gpu(texts[path], path) for name, path in gpus.items()},
            links=load_links(texts[links], links),
            assumed=load_coefficients(texts[assumed], assumed),
            models={name: load_model(texts[path], path) for name, path in models.items()},
        )

    def cost_model(self, tables: CostTables, gpu: str) -> CostModel:
        """Of a GPU by the name of its file, with its calibration if there is one."""
        from orchestrator.core.costs.tables import model_of

        return model_of(tables.gpus[gpu].device, tables.assumed, self.calibration(gpu))

    def calibration(self, gpu: str) -> Calibration | None:
        """What was fitted for a GPU by the name of its file; None where nothing was. Raises
        :class:`UsageError` for what ``model calibrate`` did not write.
        """
        from orchestrator.core.costs.tables import Calibration

        path = self._find(CALIBRATIONS / f"{gpu}.json")
        if path is None:
            return None
        try:
            found = from_json(Calibration, json.loads(read_bounded(path)))
        except (ValueError, CodecError, RecursionError) as error:
            raise UsageError(
                f"not a calibration: {error}",
                id="model.calibration",
                where=path,
                remedy="orchestrate model calibrate writes it anew",
            ) from None
        assert isinstance(found, Calibration)
        return found

    def calibration_path(self, gpu: str) -> Path:
        """Where the user's own calibration is kept, which is found before a bundled one."""
        return self.layout.home / CALIBRATIONS / f"{gpu}.json"

    def shape(self, tables: CostTables, model: str) -> ModelShape:
        """Of a model file's name, a hub name, or a folder with a ``config.json``. Raises
        :class:`UsageError` with the nearest name.
        """
        config = Path(model).expanduser() / "config.json"
        if ("/" in model or model.startswith(".")) and config.is_file():
            from orchestrator.parsing.inputs.costs.hardware_file import shape_of_config

            return shape_of_config(read_bounded(config), str(config))
        name = model_name(model)
        if name not in tables.models:
            raise UsageError(
                f"the sizes of model {model!r} are not known",
                id="model.shape",
                remedy=f"{did_you_mean(name, tables.models)} (or name a folder with config.json)",
            )
        return tables.models[name]

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
    from orchestrator.core.costs.tables import CostTables

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
