"""Command line: parses arguments into settings, calls the step and sets the exit status.

Exit status: 0 success, 1 failed training, 2 unusable input, 130 interrupted. A user's mistake is
reported in one line on stderr, without a traceback.
"""

import argparse
import contextlib
import difflib
import errno
import importlib
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipeline import secrets
from pipeline.errors import InputError, TrainingError, one_line, print_any_character, reason
from pipeline.runs import signals
from pipeline.runs.signals import PROJECT_RUN
from pipeline.settings import AnySettings, Field, Hyperparameters, checked_recipe

NOT_WRITTEN = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS,
    None,  # NumPy's error for an array that was written only in part
}  # fmt: skip
"""Write errors that the user can resolve: a full disk or a folder without write permission."""
BACKENDS = ("torch", "jax", "tensorflow", "openvino")


def run(settings_class: type[AnySettings], *functions: str) -> NoReturn:
    """Parse the command line into `settings_class`, call `functions` with the settings, and exit.

    Functions are given as `package.module:name` and imported after parsing, so that --help and
    argument errors are instant. The last function is the step; those before it check its input
    without importing Keras. The id of a run that it returns is printed as the run's address.
    """
    signals.remember_parent()
    signal.signal(signal.SIGTERM, signals.interrupt)
    print_any_character()
    _hide_secrets(sys.argv[1:])
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
    except TrainingError as error:
        _fail(str(error), status=1)
    except KeyboardInterrupt:
        _fail("interrupted", status=130)
    except SystemExit:
        raise
    except BaseException as error:
        if signals.was_interrupted():  # a library replaced KeyboardInterrupt by its own error
            _fail("interrupted", status=130)
        if problem := _explain(error):
            _fail(problem, status=2)
        print(secrets.hide(traceback.format_exc()), end="", file=sys.stderr)
        _fail(f"{type(error).__name__}: {error}", status=1, shown=True)
    raise SystemExit(0)


def _explain(error: BaseException) -> str | None:
    """One line about an error that its user can resolve; None for a mistake in the program."""
    if isinstance(error, OSError):
        is_of_files = type(error).__module__ == "builtins"  # not, for instance, requests' own
        remedy = "; is the disk full, or a folder not writable?"
        has_remedy = is_of_files and error.errno in NOT_WRITTEN
        return reason(error, 300) + (remedy if has_remedy else "")
    is_missing = isinstance(error, ModuleNotFoundError) and error.name in BACKENDS
    if is_missing or "import backend" in str(error):
        backend = os.environ.get("KERAS_BACKEND", "the one of keras.json")
        return (
            f"Keras' backend can't be imported ({reason(error)}); KERAS_BACKEND is {backend}, "
            "expected tensorflow, or jax or torch where they are installed"
        )
    explain: Any = _import("pipeline.runs.stores:explain")
    found: str | None = explain(error)
    return found


def _hide_secrets(arguments: Sequence[str]) -> None:
    """Remember the secrets of addresses on the command line, and mask them in MLflow's params."""
    addresses = [part for a in arguments for part in (a, a.partition("=")[2]) if "://" in part]
    for address in addresses:
        secrets.remember(address)
    if PROJECT_RUN in os.environ and any(secrets.masked(a) != a for a in addresses):
        with contextlib.suppress(Exception):  # a store that can't be used is reported later
            _import("pipeline.runs.tracking:hide_secrets")(os.environ[PROJECT_RUN])


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
    found, others = parser.parse_known_args(options)
    given = {name: value for name, value in vars(found).items() if name != "help"}
    if others and not wants_help:
        name = parser.positional(others)
        given[name] = [*given.get(name, []), *others]
    defaults: dict[str, Any] = {}
    if issubclass(settings_class, Hyperparameters):
        defaults |= checked_recipe(given.get("network", settings_class.network))
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
            usage=f"%(prog)s {_positional(settings_class)}[--name value ...]",
            description=inspect.getdoc(settings_class),
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

    def positional(self, words: Sequence[str]) -> str:
        """The parameter that takes words without a name. Raises InputError if there is none."""
        fields = self.settings_class.fields().values()
        names = [field.name for field in fields if field.setting.positional]
        options = [number for number, word in enumerate(words) if word.startswith("--")]
        if options or not names:
            self.error(f"unrecognized arguments: {' '.join(words[options[0] if options else 0 :])}")
        return names[0]

    def show_defaults(self, defaults: dict[str, Any]) -> None:
        """Set each parameter's help to its text, bounds and default."""
        for action in self._actions:
            if field := self.settings_class.fields().get(action.dest):
                default = defaults.get(field.name, field.default)
                shown = "" if default == "" else f"(default: {default})"
                about = f"{field.setting.help} {_sentence(field)}{shown}"
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


def _positional(settings_class: type[AnySettings]) -> str:
    """What a usage line says of words without a name, before the options."""
    names = [f.name for f in settings_class.fields().values() if f.setting.positional]
    return "".join(f"[{name} ...] " for name in names)


def _sentence(field: Field) -> str:
    bounds = "" if field.choices else field.bounds
    return f"{bounds[0].upper()}{bounds[1:]}. " if bounds else ""


def _fail(problem: str, *, status: int, shown: bool = False) -> NoReturn:
    if not shown:
        print(f"error: {one_line(problem)}" if status != 130 else problem, file=sys.stderr)
    if PROJECT_RUN in os.environ:  # the run that `mlflow run` created has not been joined
        with contextlib.suppress(Exception):  # the store may be what fails
            tag_error: Any = _import("pipeline.runs.tracking:tag_error")
            tag_error(os.environ[PROJECT_RUN], problem)
    raise SystemExit(status) from None
