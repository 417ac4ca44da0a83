"""The one door: `headstart <command>`, a file per command, each imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from headstart.errors import HeadstartError, did_you_mean
from headstart.printable import printable
from headstart.redaction import redact, show_traceback

COMMANDS = {
    "train": "run an experiment, or with -m a sweep of them",
    "plan": "print what an experiment would do: phases, layer groups, rates, penalties",
    "data": "check a dataset and show it: classes, broken files, copies and leaks, what the model will see",
    "resume": "go on with an interrupted run or sweep",
    "status": "show how a sweep is getting on",
    "runs": "list runs",
    "compare": "compare runs: each arm, and its paired gain over training from scratch",
    "rank": "rank backbones before training, and say how good a ranking was",
    "reproduce": "run a saved result again, and say whether the same comes out",
    "bundle": "pack a run into one file that another person can reproduce",
    "sync": "send runs to W&B that were logged offline",
    "dashboard": "make or update the W&B workspace and report of a project",
    "evaluate": "score runs on further test sets, other images or spoilt copies of their own",
    "predict": "say what a run's model takes images for",
    "inspect": "look at what a run gets wrong, how sure it is and where it looks",
    "export": "write a run's model as ONNX, checked",
    "list": "show the backbones, weights, strategies and data that can be chosen",
    "doctor": "check the installation, and say how to mend it",
    "clean": "free what finished runs and caches hold",
    "cache": "show the caches of decoded images and the like, or clear them",
    "completion": "print the completion script of a shell",
}

_HIDDEN = "complete-line"
"""What the completion scripts call."""

# modules called `list` or `inspect` would take the place of Python's own in this file
_MODULES = {"list": "choices", "inspect": "inspection", _HIDDEN: "completion"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, 1 (our fault), 2 (a mistake), 3 (the answer is no), 130."""
    if arguments is None:  # this process is ours, and what Python would print of a fault is too
        try:
            return main(sys.argv[1:])
        except Exception as error:
            show_traceback(error)
            return 1
    words = list(arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except HeadstartError as error:
        if debug:
            raise
        print(f"headstart: {printable(redact(str(error)))}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(
            "headstart: interrupted; `headstart resume` goes on from there.",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        from headstart.trouble import disk_trouble

        why = disk_trouble(error)
        if isinstance(error, BrokenPipeError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - or Python complains again at exit
            return 0
        if why is None or debug:
            raise
        print(f"headstart: {error.filename}: {why}", file=sys.stderr)
        return 2


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from headstart import __version__

        print(f"headstart {__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS and name != _HIDDEN:
        hint = did_you_mean(name, COMMANDS) or " `headstart --help` lists the commands."
        raise HeadstartError(f"{name}: there is no such command.{hint}")
    module = importlib.import_module(f"headstart.cli.{_MODULES.get(name, name)}")
    if name == _HIDDEN:
        return int(module.complete(words[1:]))
    parser = Parser(prog=f"headstart {name}", description=module.__doc__, add_help=name != "train")
    module.add_arguments(parser)
    return int(module.run(parser.parse_intermixed_args(words[1:])))


class Parser(argparse.ArgumentParser):
    """argparse, with our way of saying that something is wrong."""

    def __init__(self, **options: object) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of exiting."""
        raise HeadstartError(f"{message}; `{self.prog} --help` says more.")


def usage() -> str:
    """What `headstart --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{help}" for name, help in COMMANDS.items()]
    return "\n".join(
        [
            "headstart: what a pretrained backbone buys you on your images, against training from scratch",
            "",
            "usage: headstart COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "`headstart COMMAND --help` says more; --debug shows the traceback of a mistake.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
