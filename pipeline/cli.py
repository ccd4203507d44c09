"""Command line: parses arguments into settings, calls the step and sets the exit status.

Exit status: 0 success, 1 failed training, 2 unusable input, 130 interrupted. A user's mistake is
reported in one line on stderr, without a traceback.
"""

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipeline import registry
from pipeline.errors import InputError, TrainingError
from pipeline.runs import signals
from pipeline.runs.signals import PROJECT_RUN
from pipeline.settings import AnySettings, Field, Hyperparameters

NOT_WRITTEN = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS,
    None,  # NumPy's error for an array that was written only in part
}  # fmt: skip
"""Write errors that the user can resolve: a full disk or a folder without write permission."""


def run(settings_class: type[AnySettings], *functions: str) -> NoReturn:
    """Parse the command line into `settings_class`, call `functions` with the settings, and exit.

    Functions are given as `package.module:name` and imported after parsing, so that --help and
    argument errors are instant. The last function is the step; those before it check its input
    without importing Keras. The id of a run that it returns is printed as the run's address.
    """
    signals.remember_parent()
    try:
        settings = parse(settings_class, sys.argv[1:])
        *checks, step = functions
        for check in checks:
            _import(check)(settings)
        run_id = _import(step)(settings)
        if isinstance(run_id, str):
            print(_import("pipeline.runs.queries:address_text")(run_id))
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
    raise SystemExit(0)


def _import(reference: str) -> Callable[[Any], Any]:
    module, _, name = reference.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return function


def parse(settings_class: type[AnySettings], arguments: Sequence[str]) -> AnySettings:
    """Settings from `arguments`; names may have hyphens instead of underscores.

    Raises InputError for an unknown parameter or a bad value; --help prints the parameters and
    exits.
    """
    parser = _Parser(settings_class)
    options = [_with_underscores(argument) for argument in arguments]
    wants_help = "--help" in options or "-h" in options
    found, _ = parser.parse_known_args(options) if wants_help else (parser.parse_args(options), [])
    given = {name: value for name, value in vars(found).items() if name != "help"}
    defaults: dict[str, Any] = {}
    if issubclass(settings_class, Hyperparameters):
        defaults |= registry.recipe(given.get("network", settings_class.network))
    if wants_help:
        parser.show_defaults(defaults | given)
        parser.print_help()
        raise SystemExit(0)
    given = {k: "; ".join(v) if isinstance(v, list) else v for k, v in given.items()}
    return settings_class(**(defaults | given))


def _with_underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


class _Parser(argparse.ArgumentParser):
    """Parser of a settings class, with its groups; the result holds only the given parameters."""

    def __init__(self, settings_class: type[AnySettings]) -> None:
        main = getattr(sys.modules["__main__"], "__spec__", None)
        super().__init__(
            prog=f"python -m {main.name}" if main else None,
            usage="%(prog)s [--name value ...]",
            description=settings_class.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            add_help=False,
            allow_abbrev=False,
        )
        self.settings_class = settings_class
        self.add_argument("-h", "--help", action="store_true", help="Show the parameters and exit.")
        groups: dict[type, Any] = {settings_class: self}
        for field in settings_class.fields().values():
            if field.group not in groups:
                groups[field.group] = self.add_argument_group(field.group.__doc__)
            switch: dict[str, Any] = {}
            if field.plain_type is bool:
                switch = {"nargs": "?", "const": True}
            elif field.setting.repeat:
                switch = {"action": "append"}
            groups[field.group].add_argument(
                f"--{field.name}", type=_converter(field), metavar=_metavar(field), **switch
            )

    def show_defaults(self, defaults: dict[str, Any]) -> None:
        """Set each parameter's help to its text, bounds and default."""
        for action in self._actions:
            if field := self.settings_class.fields().get(action.dest):
                default = defaults.get(field.name, field.default)
                about = f"{field.setting.help} {_sentence(field)}(default: {default})"
                action.help = about.replace("%", "%%")

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            name = message.split()[2]
            close = difflib.get_close_matches(name.lstrip("-"), self.settings_class.fields(), 1)
            meant = f"; did you mean --{close[0]}?" if close else ""
            message = f"unknown parameter {message.removeprefix('unrecognized arguments: ')}{meant}"
        message = message.removeprefix("argument --").replace(
            "expected one argument", "its value is missing"
        )
        raise InputError(f"{' '.join(message.split())}; --help lists the parameters")


def _converter(field: Field) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return field.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _metavar(field: Field) -> str:
    if field.choices:
        return "{" + ",".join(field.choices) + "}"
    return "true|false" if field.plain_type is bool else field.plain_type.__name__.upper()


def _sentence(field: Field) -> str:
    bounds = "" if field.choices else field.bounds
    return f"{bounds[0].upper()}{bounds[1:]}. " if bounds else ""


def _fail(problem: str, *, status: int) -> NoReturn:
    print(f"error: {problem}", file=sys.stderr)
    if PROJECT_RUN in os.environ:  # the run that `mlflow run` created has not been joined
        tag_error: Any = _import("pipeline.runs.tracking:tag_error")
        tag_error(os.environ[PROJECT_RUN], problem)
    raise SystemExit(status) from None
