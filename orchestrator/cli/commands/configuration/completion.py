"""``orchestrate completion SHELL``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(orchestrate completion bash)"            in ~/.bashrc
    zsh:   eval "$(orchestrate completion zsh)"             in ~/.zshrc
    fish:  orchestrate completion fish > ~/.config/fish/completions/orchestrate.fish
    """
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(
        complete(ctx.find_root().command, {}, "orchestrate", "_ORCHESTRATE_COMPLETE").source()
    )
