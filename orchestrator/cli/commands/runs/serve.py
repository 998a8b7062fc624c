"""``orchestrate serve``: all runs of this home as a web page."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.option("--listen", default="127.0.0.1:8765", show_default=True, metavar="HOST:PORT")
@click.option(
    "--token-file", metavar="FILE", help="What readers must enter; or ORCHESTRATE_PAGE_TOKEN."
)
@click.option("--name", "names", multiple=True, metavar="HOST", help="A name that the server has.")
@click.option(
    "--allow-stop", is_flag=True, help="Runs may be stopped from the page; needs a token."
)
def serve(listen: str, token_file: str | None, names: tuple[str, ...], allow_stop: bool) -> int:
    """Show all runs in a browser, live and past, until Ctrl-C. Without a token only this machine
    may read.

    \b
    orchestrate serve
    ssh -L 8765:127.0.0.1:8765 HOST        # from elsewhere, without opening a port
    """
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.web.settings import page_settings, read_token

    token = read_token(Path(token_file) if token_file else None, os.environ)
    settings = page_settings(listen, token, names, allow_stop=allow_stop)
    _require_extra()
    from orchestrator.adapters.web.http.server import serve_page

    layout = Layout.from_environment(os.environ)
    serve_page(layout, settings, say=lambda address: click.echo(f"serving {address}", err=True))
    return 0


def _require_extra() -> None:
    """Raises :class:`UsageError` where starlette or uvicorn is missing."""
    from importlib.util import find_spec

    from orchestrator.adapters.extras import install_command
    from orchestrator.core.base.errors import UsageError

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        what = f"the page needs {' and '.join(missing)}"
        raise UsageError(what, id="serve.extra", remedy=install_command("serve"))
