"""``orchestrate completion SHELL``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(orchestrate completion bash)"            in ~/.bashrc
    zsh:   eval "$(orchestrate completion zsh)"             in ~/.zshrc
    fish:  orchestrate completion fish > ~/.config/fish/completions/orchestrate.fish
    """
    from orchestrator.cli.main import cli

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(cli, {}, "orchestrate", "_ORCHESTRATE_COMPLETE").source())
