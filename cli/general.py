"""Options that go with every command, wherever they stand on the line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frozen_cache.errors import UserError
from frozen_cache.progress import Mode

MODES: dict[str, Mode | None] = {"--quiet": "off", "--progress": None, "--no-progress": "plain"}
"""Option -> what is shown of progress; None for what suits the terminal."""
HELP = (
    "With every command: --config FILE (options from a project file), --quiet (results and errors only), "
    "--progress or --no-progress, --debug (tracebacks)."
)


@dataclass(frozen=True)
class General:
    """What the general options said."""

    debug: bool
    mode: Mode | None
    config: Path | None
    """The project file."""


def general_options(arguments: list[str]) -> tuple[General, list[str]]:
    """The general options among the arguments before a `--`, and the other arguments.

    UserError for an empty argument: `--only "$CLASSES"`, where the shell has no such variable, would be all classes.
    For a value of an option that is no UTF-8 text, too: it is recorded in JSON.
    """
    _check_words(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug, mode, config = False, None, None
    rest = []
    words = iter(arguments[:end])
    for word in words:
        if word == "--debug":
            debug = True
        elif word in MODES:
            mode = MODES[word]
        elif word == "--config" or word.startswith("--config="):
            value = next(words, None) if word == "--config" else word.partition("=")[2]
            if not value:
                raise UserError("--config: name the project file; `frozen-cache init` writes one")
            config = Path(value)
        else:
            rest.append(word)
    return General(debug=debug, mode=mode, config=config), rest + arguments[end:]


def _check_words(arguments: list[str]) -> None:
    for before, word in zip(["", *arguments], arguments, strict=False):
        option, equals, value = word.partition("=")
        if not word.strip() or (option.startswith("--") and equals and not value.strip()):
            name = option if equals else before
            raise UserError(
                f"{name if name.startswith('--') else 'an argument'} is empty: give a value, or leave it out "
                "(a variable that the shell does not know is empty, too)"
            )
        if before.startswith("--") or option.startswith("--"):
            try:
                word.encode()
            except UnicodeEncodeError:
                raise UserError(f"{word} is no UTF-8 text: rename it, or name it by a link that is") from None
