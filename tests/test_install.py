"""What `make` installs with, and that MLflow takes what it installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.commands import LIMIT, ROOT


def make_install(*options: str, path: str = "") -> "subprocess.CompletedProcess[str]":
    """`make install` as from a shell, whatever `make` runs these tests."""
    of_make = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON", "VENV"}
    env = {name: value for name, value in os.environ.items() if name not in of_make}
    return subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory", "install", *options],
        env={**env, "PATH": f"{path}{os.pathsep}{env['PATH']}" if path else env["PATH"]},
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("python", ["/nowhere/python3.13", "false"])
def test_make_says_in_one_line_that_there_is_no_python(python: str, tmp_path: Path) -> None:
    done = make_install(f"VENV={tmp_path}/venv", f"PYTHON={python}")
    ours, of_make = done.stderr.splitlines()
    assert ours.startswith("error: no Python 3.11, 3.12 or 3.13 with ssl and sqlite3: install one")
    assert of_make.startswith("make: ***")


def test_make_takes_the_newest_python_that_runs(tmp_path: Path) -> None:
    """Not one whose command is there but fails, as pyenv's for a version that is not active."""
    for name in ("python3.13", "python3.12"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python3.11").symlink_to(sys.executable)
    done = make_install("--dry-run", f"VENV={tmp_path}/venv", path=str(tmp_path))
    [creates] = [line for line in done.stdout.splitlines() if " venv " in line]
    assert "python3.11 " in creates


@pytest.mark.slow
def test_mlflow_run_without_a_flag_takes_the_environment_that_make_installed(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """In a new environment, which finds MLflow in this one; pyenv is not on its PATH."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    env = {**environment, "PATH": "/usr/bin:/bin", "PYTHONPATH": sysconfig.get_path("purelib")}
    subprocess.run([python, ROOT / "scripts" / "adopt_venv.py"], env=env, check=True)
    project = tmp_path / "project"
    project.mkdir()
    for name in ("python_env.yaml", "requirements.txt"):
        shutil.copy(ROOT / name, project)
    command = "python -c 'import sys; print(sys.prefix)'"
    (project / "MLproject").write_text(f'entry_points: {{main: {{command: "{command}"}}}}')
    done = subprocess.run(
        [python, "-m", "mlflow", "run", project],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path}/venv\n", done.stderr
    assert done.stderr == ""
