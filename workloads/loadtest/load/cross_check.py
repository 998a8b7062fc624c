"""The same load by another tool, against the same server, right after ours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import orchestrate_kit as kit

from ..base.records import RequestRecord
from ..judge.definitions import DEFINITIONS
from ..judge.evaluation import evaluate
from ..judge.summary import Summary
from ..peers.comparison import Comparison, compare
from ..peers.tools import TOOLS, PeerError, PeerFigures, PeerLoad, PeerTool
from .node_run import NodeRun
from .settings import Settings

NONE = "none"
FOLDER, LOG = "cross_check", "cross_check.log"
# Beside the load itself: importing, its own warm-up, writing its files.
START_S = 240.0
END_S = 10.0
SAY_S = 10.0
MAX_RESULT_BYTES = 64 * 1024 * 1024
TAIL_BYTES = 4096
STOPPED = "the cross-check was stopped; the figures of our own load stand"
KEY, OFFLINE, DATA_SETS = "OPENAI_API_KEY", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE"


def chosen_tool(settings: Settings) -> tuple[PeerTool, Path] | None:
    """The tool and its program on this node; None if not asked for. Raises :class:`PeerError`."""
    if settings.cross_check == NONE:
        return None
    tool = TOOLS[settings.cross_check]
    asked = settings.cross_check_program
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), beside])
    found = shutil.which(asked or tool.program, path=path)
    if found is None:
        raise PeerError(
            f"cross_check={tool.name}: {asked or tool.program} is not on this node; install it "
            f"there (pip install {tool.package}, best in an environment of its own) and say where "
            f"it is: --set cross_check_program=/path/to/{tool.program}"
        )
    if tool.shows_key and os.environ.get(KEY):
        what = f"{tool.name} would show ${KEY} to all users of this node"
        raise PeerError(f"{what}; use cross_check=vllm")
    return tool, Path(found)


def cross_check(node: NodeRun, tool: PeerTool, program: Path, requests: int) -> Comparison:
    """Their figures beside ours, of as many requests, and ours once more after them: how far apart
    those two are is what the server and the machine do by themselves. Raises :class:`PeerError`,
    ``OSError``, ``RuntimeError``.
    """
    load = _peer_load(node, requests)
    load.folder.mkdir(parents=True, exist_ok=True)
    _write_prompts(node, tool, load)
    argv = [str(program), *tool.argv(load)]
    print(f"loadtest: the same load by {tool.name}: {load.requests} requests", flush=True)
    limit_s = START_S + node.stages[0].schedule_s + 2 * node.settings.timeout
    with tempfile.TemporaryDirectory(prefix="cross-check-") as cache:
        environment = _environment(load, cache)
        asyncio.run(_run_tool(argv, environment, node.output / LOG, limit_s, node.work.check))
    theirs = _read_result(tool, load.folder / tool.result)
    again = asyncio.run(node.run_again())
    if node.stopped:
        raise PeerError(STOPPED)
    first = _summary(node, tool, node.read_records())
    return compare(tool, load.requests, first, _summary(node, tool, again), theirs)


def _peer_load(node: NodeRun, requests: int) -> PeerLoad:
    settings, stage = node.settings, node.stages[0]
    if len(node.work.targets) != 1:
        raise PeerError("a cross-check compares loads of one engine: --set engines=1")
    return PeerLoad(
        target=node.work.targets[0],
        requests=requests,
        rate=stage.rate,
        concurrency=settings.concurrency,
        arrival=settings.arrival,
        burstiness=settings.burstiness,
        output_tokens=settings.output_tokens,
        ignore_eos=settings.ignore_eos,
        seed=settings.seed,
        processes=settings.processes,
        tokenizer=settings.cross_check_tokenizer or settings.model or _generated_tokenizer(node),
        folder=node.output / FOLDER,
    )


def _generated_tokenizer(node: NodeRun) -> str:
    """That of the built-in engine's small model; of an endpoint, the model that it serves."""
    if not node.work.own_engines:
        return node.work.targets[0].model
    from orchestrate_serving.builtin.model import locate_model
    from orchestrate_serving.settings import known_shape

    return locate_model("", shape=known_shape(node.settings.shape))


def _write_prompts(node: NodeRun, tool: PeerTool, load: PeerLoad) -> None:
    """Prompts as our own requests have, one a line, with other numbers in front: a server that
    keeps prefixes would answer the same ones sooner.
    """
    with load.prompts.open("w", encoding="utf-8") as file:
        for number in range(load.requests):
            ask = node.work.asks[number % len(node.work.asks)]
            file.write(json.dumps({tool.key: f"{node.mark(number)} {ask.text}"}) + "\n")
    node.numbers += load.requests


def _environment(load: PeerLoad, cache: str) -> dict[str, str]:
    """Offline, AIPerf 0.13 takes the path of a folder for the name of a repository. guidellm 0.8
    keeps a copy of the prompts as a data set, which is to be gone with it.
    """
    left_out = {OFFLINE} if Path(load.tokenizer).is_dir() else set()
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {DATA_SETS: cache}


async def _run_tool(
    argv: list[str],
    environment: dict[str, str],
    log: Path,
    limit_s: float,
    check: Callable[[], None],
) -> None:
    """Until it ends by itself; nothing of it is left then. Raises :class:`PeerError` for any other
    end, ``RuntimeError`` when an engine has died.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        status = await _await_end(process, stopping, limit_s, check)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if status:
        raise PeerError(
            f"{Path(argv[0]).name} ended with status {status}, see {LOG}: {_last_words(log)}"
        )


async def _await_end(
    process: asyncio.subprocess.Process,
    stopping: asyncio.Event,
    limit_s: float,
    check: Callable[[], None],
) -> int:
    over, stopped = (asyncio.create_task(each) for each in (process.wait(), stopping.wait()))
    waited_s = 0.0
    try:
        while waited_s < limit_s:
            done, _ = await asyncio.wait(
                (over, stopped), timeout=SAY_S, return_when=asyncio.FIRST_COMPLETED
            )
            if over in done:
                return over.result()
            if stopped in done:
                raise PeerError(STOPPED)
            check()
            waited_s += SAY_S
            kit.progress(round(waited_s), round(limit_s), "s of the cross-check")
    finally:
        over.cancel()
        stopped.cancel()
    raise PeerError(f"the cross-check was not over after {limit_s:.0f} s")


def _last_words(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _read_result(tool: PeerTool, path: Path) -> PeerFigures:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RESULT_BYTES + 1)
        document = json.loads(content) if len(content) <= MAX_RESULT_BYTES else None
    except FileNotFoundError:
        raise PeerError(f"{tool.name} left no {tool.result}; see {LOG}") from None
    except (ValueError, RecursionError) as error:
        raise PeerError(f"{tool.name}'s {tool.result} is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise PeerError(f"{tool.name}'s {tool.result} is no JSON object of at most 64 MiB")
    return tool.read(document)


def _summary(node: NodeRun, tool: PeerTool, records: Iterable[RequestRecord]) -> Summary:
    """Our records by the tool's definitions."""
    terms = node.settings.terms_of(DEFINITIONS[tool.definition])
    (result, *_) = evaluate([(node.load, records)], terms)
    return result.summary
