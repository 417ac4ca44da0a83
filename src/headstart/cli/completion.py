"""Print the script that completes `headstart` in a shell.

eval "$(headstart completion bash)"     in ~/.bashrc
eval "$(headstart completion zsh)"      in ~/.zshrc
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_BASH = """_headstart() {
    local line="${COMP_LINE:0:$COMP_POINT}" word typed found
    # bash takes what stands behind = for a word of its own, and wants only that back
    typed="${line##* }"
    case "$typed" in *=*) typed="${typed%=*}=" ;; *) typed="" ;; esac
    COMPREPLY=()
    found="$(headstart complete-line "$line" 2>/dev/null)"
    while IFS= read -r word; do [ -n "$word" ] && COMPREPLY+=("${word#"$typed"}"); done <<< "$found"
    if [ ${#COMPREPLY[@]} -eq 1 ]; then
        case "${COMPREPLY[0]}" in *=|*.) compopt -o nospace 2>/dev/null ;; esac
    else
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _headstart headstart
"""

_ZSH = """_headstart() {
    local -a found open closed
    found=("${(@f)$(headstart complete-line "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    open=(${(M)found:#*[=.]})
    closed=(${found:#*[=.]})
    (( ${#open} )) && compadd -Q -S '' -- $open
    (( ${#closed} )) && compadd -Q -- $closed
    (( ${#open} + ${#closed} )) || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
compdef _headstart headstart
"""


_FLAGS = {
    "train": ("--multirun", "--config-dir", "--cfg", "--help", "--debug"),
    "plan": ("--config-dir", "--plot", "--help", "--debug"),
    "rank": (
        "--config-dir", "--scores", "--by", "--bootstrap", "--controls", "--source", "--elsewhere", "--top",
        "--then", "--against", "--ranking", "--metric", "--format", "--plot", "--help", "--debug",
    ),
    "data": ("--config-dir", "--pairs", "--plot", "--save-split", "--json", "--help", "--debug"),
}  # fmt: skip
"""Commands that take overrides, and their flags."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    print(_BASH if arguments.shell == "bash" else _ZSH, end="")
    return 0


def complete(words: Sequence[str]) -> int:
    """Print the completions of a command line up to the cursor, a line each."""
    for candidate in candidates(words[0] if words else ""):
        print(candidate)
    return 0


def candidates(line: str) -> list[str]:
    """What the last word of `line` may become."""
    from headstart.cli import COMMANDS

    words = line.split(" ")
    word, before = words[-1], [w for w in words[1:-1] if w]
    if not before:
        return [name for name in COMMANDS if name.startswith(word)]
    if before[0] == "list" and len(before) == 1:
        from headstart.cli.choices import WHAT

        return [name for name in WHAT if name.startswith(word)]
    if before[0] == "completion":
        return [name for name in ("bash", "zsh") if name.startswith(word)]
    return _of_train(word, before[0]) if before[0] in _FLAGS else []


def _of_train(word: str, command: str) -> list[str]:
    from headstart.cli.options import all_keys
    from headstart.config.choices import group_choices
    from headstart.config.schema.root import GROUPS

    groups = [*GROUPS, "regularizer", "experiment"]
    keys = all_keys()
    if word.startswith("-"):
        return [flag for flag in _FLAGS[command] if flag.startswith(word)]
    key, equals, value = word.partition("=")
    if equals:
        *done, value = value.split(",")
        start = f"{key}={''.join(item + ',' for item in done)}"
        if key in groups:
            choices = group_choices(key)
        elif key in keys:
            choices = list(keys[key].metadata["choices"] or ())
            if keys[key].type in ("bool", bool):
                choices = ["true", "false"]
        else:
            choices = []
        return [start + choice for choice in choices if choice.startswith(value)]
    if "." in word:
        return [f"{name}=" for name in keys if name.startswith(word)]
    tops = [f"{group}=" for group in groups] + [f"{key}=" for key in keys if "." not in key]
    tops += [f"{top}." for top in dict.fromkeys(key.partition(".")[0] for key in keys if "." in key)]
    return [top for top in tops if top.startswith(word)]
