"""`frozen-cache`: the commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from frozen_cache.cli import (
    ablate,
    cache,
    convert,
    demo,
    detectors,
    doctor,
    evaluate,
    export,
    extract,
    head,
    init,
    predict,
    train,
    visualize,
)
from frozen_cache.cli import run as run_
from frozen_cache.cli.examples import epilog
from frozen_cache.cli.general import HELP, general_options
from frozen_cache.cli.invoke import invoke
from frozen_cache.cli.stopping import next_command, stoppable
from frozen_cache.disk_errors import explain
from frozen_cache.errors import FrozenCacheError, StoppedError
from frozen_cache.freed_memory import keep_freed_memory
from frozen_cache.memory_errors import explain_memory
from frozen_cache.printable import printable
from frozen_cache.processes import leave_processes
from frozen_cache.progress import showing

app = typer.Typer(
    name="frozen-cache",
    help="Turn a trained DETR detector into an instance segmenter: run it once, then train a mask head from its cache.",
    no_args_is_help=True,
    epilog=HELP,
    # Rich would take the brackets of `[default: ...]` for its own and drop them.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"frozen-cache {version('frozen-cache')}")
        raise typer.Exit


@app.callback()
def general(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of no single command; those that go with every command are taken by `exit_code`."""


for _name, _function, _short in (
    ("demo", demo.demo, "The whole job on embedded data."),
    ("init", init.init, "Look at a folder and write a project file."),
    ("run", run_.run, "Do what a project file says."),
    ("extract-features", extract.extract_features, "Run a frozen detector over a data set once; make a cache."),
    ("train-head", train.train_head, "Train a mask head from a cache alone, or live."),
    ("evaluate", evaluate.evaluate, "COCO mask AP and box AP of a head or a baseline."),
    ("predict", predict.predict, "Masks on pictures and videos of your own."),
    ("export", export.export, "A head and its detector as one folder to hand on."),
    ("visualize", visualize.visualize, "Probability maps, predictions beside truth, mistakes."),
    ("ablate", ablate.ablate, "Train and evaluate every variant of a grid."),
    ("convert", convert.convert, "Write COCO files from YOLO, VOC, LabelMe, CVAT, masks."),
    ("detectors", detectors.detectors, "List the detectors that --detector takes."),
    ("doctor", doctor.doctor, "Which kernels are used and why, what is missing, a check."),
):
    app.command(_name, short_help=_short, epilog=epilog(_name))(_function)
app.add_typer(cache.app, name="cache", help="Look at a cache, check it, mend it.")
app.add_typer(head.app, name="head", help="Describe a mask head: modules, parameters, MACs.")
for _group, _prefix in ((app, ""), (cache.app, "cache "), (head.app, "head ")):
    for _command in _group.registered_commands:
        assert _command.callback is not None
        _command.callback = stoppable(f"{_prefix}{_command.name}", _command.callback)

# typer brings its own copy of click or uses the installed one, by version; either way this is click's UsageError.
USAGE_ERROR: Any = typer.BadParameter.__base__


def run() -> None:
    """Entry point of the console command. Bad input: one line and exit code 2; Ctrl-C: 130; `--debug`: tracebacks."""
    # Idle OpenMP threads that spin take a core from whoever shares the machine; must be set before torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Several processes: gradients of 1 x 1 convolutions are copied on their way, which concerns nobody who trains.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    keep_freed_memory()
    if isinstance(sys.stdout, TextIOWrapper):  # what its encoding lacks comes as an escape, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    code = exit_code(sys.argv[1:])
    leave_processes()
    sys.exit(code)


def exit_code(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    debug = "--debug" in arguments
    rest = arguments
    try:
        general, rest = general_options(arguments)
        with showing(general.mode):
            result = invoke(typer.main.get_command(app), rest, config=general.config)
    except USAGE_ERROR as error:
        error.show()
        return 2
    except StoppedError as error:
        if debug:
            raise
        print(printable(f"{error}; {next_command(arguments, rest=rest)}"), file=sys.stderr)
        return error.exit_code
    except (FrozenCacheError, OSError, MemoryError, RuntimeError) as error:
        text = _said(error)
        if debug or not text:
            raise
        print(f"error: {printable(' '.join(text.split()))}", file=sys.stderr)
        return error.exit_code if isinstance(error, FrozenCacheError) else 2
    return result if isinstance(result, int) else 0


def _said(error: Exception) -> str:
    """What an error says to people; empty for one that is a mistake of ours."""
    if isinstance(error, FrozenCacheError):
        return str(error)
    return explain(error) if isinstance(error, OSError) else explain_memory(error)
