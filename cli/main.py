"""`frozen-cache`: the commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from frozen_cache.cli import ablate, cache, demo, detectors, evaluate, extract, head, train

app = typer.Typer(
    name="frozen-cache",
    help="Turn a trained DETR detector into an instance segmenter: run it once, then train a mask head from its cache.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("extract-features")(extract.extract_features)
app.command("train-head")(train.train_head)
app.command("evaluate")(evaluate.evaluate)
app.command("ablate")(ablate.ablate)
app.command("detectors")(detectors.detectors)
app.add_typer(cache.app, name="cache", help="Look at a cache, check it, mend it.")
app.add_typer(head.app, name="head", help="Describe a mask head: modules, parameters, multiply-adds.")

# typer brings its own copy of click or uses the installed one, by version; either way this is click's UsageError.
USAGE_ERROR: Any = typer.BadParameter.__base__


def run() -> None:
    """Entry point of the console command. Bad input: one line and exit code 2; Ctrl-C: 130; `--debug`: tracebacks."""
    # Idle OpenMP threads that spin take a core from whoever shares the machine; must be set before torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    sys.exit(exit_code(arguments, debug=len(arguments) < len(sys.argv) - 1))


def exit_code(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command line and return its exit code."""
    from frozen_cache.errors import FrozenCacheError

    try:
        result = app(arguments, standalone_mode=False)
    except USAGE_ERROR as error:
        error.show()
        return 2
    except (FrozenCacheError, OSError) as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code if isinstance(error, FrozenCacheError) else 2
    except (KeyboardInterrupt, typer.Abort):
        if debug:
            raise
        print("stopped; the same command goes on where it left off", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0
