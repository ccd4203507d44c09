"""The edge between a shell and the project: settings in, an exit status out.

Exit status: 0 done, 1 a training that failed, 2 input that can't be used, 130 interrupted. A user's
mistake is answered with one line on stderr, without a traceback.
"""

import errno
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import tyro
from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)

from pipeline import InputError, TrainingError
from pipeline.lifetime import PROJECT_RUN
from pipeline.settings import RECIPES, Training, recipe

Settings = TypeVar("Settings")
NOT_WRITTEN = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS,
    None,  # NumPy's, of an array that was written in part
}  # fmt: skip
"""Errors of the system that the user can end by making room, or a folder writable."""


def run(settings_class: type[Settings], command: Callable[[Settings], Any]) -> None:
    """Parse the command line into `settings_class`, call `command` with it and exit."""
    try:
        command(_parse(settings_class))
    except InputError as error:
        _fail(str(error), status=2)
    except OSError as error:
        if error.errno not in NOT_WRITTEN:
            raise
        _fail(f"{error}; is the disk full, or a folder not writable?", status=2)
    except TrainingError as error:
        _fail(str(error), status=1)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parse(settings_class: type[Settings]) -> Settings:
    """Settings from sys.argv; tyro's own boxes of several lines become an `InputError` of one."""
    # on_parse_error is tyro's documented hook for this, private until it settles (tyro 1.0.17).
    with on_parse_error(_raise_one_line):
        return tyro.cli(settings_class, default=_defaults(settings_class), use_underscores=True)


def _defaults(settings_class: type[Settings]) -> Any:
    """For a training, the recipe of the network in sys.argv; else the class has its own."""
    if issubclass(settings_class, Training):
        # An equals sign, or a blank: --network=compact, --network compact.
        words = [part for word in sys.argv[1:] for part in word.split("=", 1)]
        for option, value in itertools.pairwise(words):
            if option == "--network" and value in RECIPES:
                return recipe(settings_class, value)
    return tyro.MISSING_NONPROP


def _raise_one_line(event: ParseErrorEvent) -> None:
    match event:
        case UnrecognizedArgs(tokens=tokens):
            problem = f"unknown parameter {' '.join(tokens)}"
        case BadValue(argument=argument):
            problem = f"{argument.display_name().lstrip('-')}: its value is missing"
        case InvalidChoice(argument=argument, value=value, choices=choices):
            name = argument.display_name().lstrip("-")
            problem = f"{name}={value}: expected one of {', '.join(choices)}"
        case InstantiationFailure(message=message, argument=argument) if argument is not None:
            problem = f"{argument.display_name().lstrip('-')}: {message}"
        case _:
            problem = f"the command line can't be read ({type(event).__name__})"
    raise InputError(f"{' '.join(problem.split())}; --help lists the parameters")


def _fail(problem: str, *, status: int) -> NoReturn:
    print(f"error: {problem}", file=sys.stderr)
    if PROJECT_RUN in os.environ:  # `mlflow run` made a run that was not joined yet
        from pipeline import tracking  # heavy, and needed only here

        tracking.tag_error(os.environ[PROJECT_RUN], problem)
    raise SystemExit(status) from None
