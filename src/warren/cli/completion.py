"""``warren completion``: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS), metavar="bash|zsh|fish")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell.

    \b
    bash  warren completion bash > ~/.local/share/bash-completion/completions/warren
    zsh   warren completion zsh > a file named _warren in a directory of $fpath
    fish  warren completion fish > ~/.config/fish/completions/warren.fish
    once  eval "$(warren completion bash)"
    """
    import json

    from click.shell_completion import ShellComplete, get_completion_class

    from warren.cli import program

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows these three
    # Its own source() would start a bash to see how old it is, and the script may be meant for another machine.
    script = ShellComplete.source(kind(program, {}, "warren", "_WARREN_COMPLETE"))
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
