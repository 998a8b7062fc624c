"""Which server runs, on which GPUs, and how its command line is made. Pure."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from .failures import ServingError

CUSTOM = "custom"
BUILTIN = "builtin"
NO_SHAPE = "none"
FIELDS = frozenset({"python", "model", "host", "port", "tensor_parallel", "index"})


def known_shape(choice: str) -> str:
    """A parameter's shape; "" for :data:`NO_SHAPE`."""
    return "" if choice == NO_SHAPE else choice


class SettingsError(ValueError):
    """Settings that cannot be meant; nothing was started."""


class EngineError(ServingError):
    """An engine that did not start, did not become healthy, or died; with its log's last lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A kind of server. ``command`` is a template, word by word; ``health`` answers 200 when ready.

    ``tensor_parallel`` are the words that spread a model over several GPUs, () = it cannot.
    ``environment`` is added to that of the process.
    """

    command: tuple[str, ...]
    health: str = "/health"
    tensor_parallel: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    needs_model: bool = True


PRESETS: Mapping[str, Preset] = {
    BUILTIN: Preset(
        command=(
            *("{python}", "-m", "orchestrate_serving.builtin.server"),
            *("--model", "{model}", "--host", "{host}", "--port", "{port}"),
        ),
        needs_model=False,
    ),
    "vllm": Preset(
        command=("vllm", "serve", "{model}", "--host", "{host}", "--port", "{port}"),
        tensor_parallel=("--tensor-parallel-size", "{tensor_parallel}"),
    ),
    "sglang": Preset(
        command=(
            *("{python}", "-m", "sglang.launch_server", "--model-path", "{model}"),
            *("--host", "{host}", "--port", "{port}"),
        ),
        tensor_parallel=("--tp-size", "{tensor_parallel}"),
    ),
    "transformers": Preset(
        command=("transformers", "serve", "{model}", "--host", "{host}", "--port", "{port}"),
        # It asks the hub whether a newer version of itself is there.
        environment=(("HF_HUB_DISABLE_UPDATE_CHECK", "1"),),
    ),
    "llama.cpp": Preset(
        command=("llama-server", "--model", "{model}", "--host", "{host}", "--port", "{port}"),
    ),
    CUSTOM: Preset(command=(), health="/v1/models", needs_model=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What to run. ``engine`` names a preset. ``shape``: sizes of a known model, which the built-in
    engine serves with random weights in place of ``model``.

    ``command`` is the template of ``custom``, ``arguments`` are words after any preset's; both are
    split as a shell would, and run without one. In them ``{model}``, ``{host}``, ``{port}``,
    ``{python}``, ``{index}`` and ``{tensor_parallel}`` are filled in. ``gpus`` are those of this
    node, as ``CUDA_VISIBLE_DEVICES`` names them. ``engines`` 0 = one for each ``tensor_parallel``
    GPUs, and one without GPUs. ``port`` 0 = free ones; else that and the ones after it. ``health``
    "" = the preset's. All ``_s`` are seconds.
    """

    engine: str = BUILTIN
    model: str = ""
    shape: str = NO_SHAPE
    command: str = ""
    arguments: str = ""
    gpus: tuple[str, ...] = ()
    engines: int = 0
    tensor_parallel: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    health: str = ""
    ready_s: float = 600.0
    stop_s: float = 20.0
    warm_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One process to start: its place among the engines, and its GPUs."""

    index: int
    gpus: tuple[str, ...]


def preset_of(settings: EngineSettings) -> Preset:
    """The preset, checked against the rest. Raises :class:`SettingsError`."""
    preset = PRESETS.get(settings.engine)
    if preset is None:
        raise SettingsError(f"engine {settings.engine} is none of {', '.join(PRESETS)}")
    if settings.engine == CUSTOM and not settings.command.strip():
        raise SettingsError("engine custom needs command, the words that start the server")
    if settings.engine != CUSTOM and settings.command:
        raise SettingsError(f"command is for engine custom, not {settings.engine}; see arguments")
    if preset.needs_model and not settings.model:
        raise SettingsError(f"engine {settings.engine} needs model, a hub name or a path")
    if settings.shape != NO_SHAPE and (settings.engine != BUILTIN or settings.model):
        raise SettingsError(
            f"shape {settings.shape} is for engine builtin without a model, which draws the weights"
        )
    if settings.tensor_parallel > 1 and settings.engine != CUSTOM and not preset.tensor_parallel:
        raise SettingsError(
            f"engine {settings.engine} cannot spread a model over GPUs: tensor_parallel is "
            f"{settings.tensor_parallel}; use vllm or sglang"
        )
    if settings.health and not settings.health.startswith("/"):
        raise SettingsError(f"health {settings.health!r} is no path that begins with /")
    for template in (settings.command, settings.arguments):
        _words(template)
    return preset


def plan_starts(settings: EngineSettings) -> tuple[Start, ...]:
    """The processes to start, each with GPUs of its own. Raises :class:`SettingsError`."""
    preset_of(settings)
    each, gpus = settings.tensor_parallel, settings.gpus
    if not gpus:
        if each > 1:
            raise SettingsError(f"tensor_parallel is {each}, and this node has no GPU")
        return tuple(Start(index=index, gpus=()) for index in range(settings.engines or 1))
    fitting = len(gpus) // each
    if settings.engines > fitting or not fitting:
        wanted = f"{settings.engines or 1} engines of {each} GPUs"
        raise SettingsError(f"{wanted} do not fit this node, which has {len(gpus)}")
    count = settings.engines or fitting
    return tuple(Start(index=n, gpus=gpus[n * each : (n + 1) * each]) for n in range(count))


def command_of(settings: EngineSettings, start: Start, *, model: str, port: int) -> list[str]:
    """The words that start this engine."""
    preset = preset_of(settings)
    template = [*preset.command, *_words(settings.command)]
    if settings.tensor_parallel > 1:
        template += preset.tensor_parallel
    if settings.shape != NO_SHAPE:
        template += ("--shape", settings.shape)
    values = {
        "python": sys.executable,
        "model": model,
        "host": settings.host,
        "port": str(port),
        "tensor_parallel": str(settings.tensor_parallel),
        "index": str(start.index),
    }
    return [word.format_map(values) for word in [*template, *_words(settings.arguments)]]


def environment_of(
    settings: EngineSettings, start: Start, base: Mapping[str, str]
) -> dict[str, str]:
    """The environment of this engine: its own GPUs, and nothing of the rank that starts it.

    A server that finds torchrun's variables would join the ranks' process group.
    """
    kept = {
        name: value
        for name, value in base.items()
        if name not in RANK_VARIABLES and not name.startswith(TORCHRUNS_OWN)
    }
    if start.gpus:
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(start.gpus)
    if settings.engine == BUILTIN:  # found by this process, but perhaps not by the new one
        path = (str(Path(__file__).resolve().parents[1]), base.get("PYTHONPATH", ""))
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    return {**kept, **dict(preset_of(settings).environment)}


RANK_VARIABLES = frozenset(
    "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_NAME ROLE_RANK "
    "ROLE_WORLD_SIZE MASTER_ADDR MASTER_PORT".split()
)
TORCHRUNS_OWN = ("TORCHELASTIC_", "TORCH_ELASTIC_")


def _words(template: str) -> list[str]:
    """Split as a shell would. Raises :class:`SettingsError` for what cannot be filled in."""
    try:
        words = shlex.split(template)
        names = [name for word in words for _, name, _, _ in Formatter().parse(word)]
    except ValueError as error:
        raise SettingsError(f"{template!r}: {error}") from None
    unknown = sorted({name for name in names if name is not None} - FIELDS)
    if unknown:
        raise SettingsError(
            f"{template!r}: {{{unknown[0]}}} is none of {_listed(sorted(FIELDS))}; a brace of "
            "its own is written twice"
        )
    return words


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
