"""Inference servers of this node, for workloads that need some: start, check, warm up, stop.

    from orchestrate_serving import EngineSettings, start_engines

    with start_engines(EngineSettings(model="Qwen/Qwen2-7B"), logs=kit.output_dir()) as engines:
        for engine in engines:
            post(engine.base_url + "/v1/completions", model=engine.model, ...)
            engines.check()  # raises EngineError if one died

Any server that speaks OpenAI's protocol: presets for vLLM, SGLang, ``transformers serve`` and
llama.cpp, a command of one's own, or the built-in engine, which needs torch and transformers alone.
Imports the standard library only; ``orchestrate_serving.builtin`` is what needs torch.
"""

from __future__ import annotations

from .processes import Engine, RunningEngines, start_engines
from .settings import PRESETS, EngineError, EngineSettings, SettingsError

__all__ = [
    "PRESETS",
    "Engine",
    "EngineError",
    "EngineSettings",
    "RunningEngines",
    "SettingsError",
    "start_engines",
]
