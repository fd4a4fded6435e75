"""``warren completion``: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click

_SHELLS = ("bash", "zsh", "fish")
_BASH = """\
_warren_completion() {
    local IFS=$'\\n' words=() index=-1 i word previous= current type value
    # bash takes words apart at colons, which addresses and selectors have, and replaces what is behind the last one.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $index -ge 0 && $COMP_WORDBREAKS == *:* && ( $word == :* || $previous == *: && -n $word ) ]]; then
            words[index]+=$word
        else
            words[++index]=$word
        fi
        previous=$word
    done
    current=${words[index]}
    while IFS=, read -r type value; do
        case $type in
        dir) COMPREPLY=() && compopt -o dirnames ;;
        file) COMPREPLY=() && compopt -o default ;;
        plain)
            [[ $current == *:* && $COMP_WORDBREAKS == *:* ]] && value=${value#"${current%"${current##*:}"}"}
            COMPREPLY+=("$value")
            ;;
        esac
    done <<<"$(env COMP_WORDS="${words[*]}" COMP_CWORD=$index _WARREN_COMPLETE=bash_complete "$1")"
}

complete -o nosort -F _warren_completion warren
"""


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
    script = _BASH if shell == "bash" else ShellComplete.source(kind(program, {}, "warren", "_WARREN_COMPLETE"))
    # What click has for fish drops each description behind its first comma; a file of $fpath that is click's for zsh
    # completes nothing the second time it is called.
    script = script.replace('string split ","', 'string split --max 1 ","')
    script = script.replace("[[ $zsh_eval_context[-1] == loadautofunc ]]", "[[ $funcstack[1] == _warren ]]")
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
