"""Circumstances of a run: environment.json, and uncommitted changes as changes.diff."""

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.errors import note

ROOT = Path(__file__).resolve().parent.parent.parent
FILE, CHANGES = "environment.json", "changes.diff"
LONGEST_DIFF = 200_000
"""Most characters of changes.diff."""
UNKNOWN = "unknown"


@cache
def environment() -> dict[str, Any]:
    """Versions, computer and commit of this process, for environment.json.

    `git.changed` is whether tracked files differ from the commit; both are unknown without git, and
    where this folder is no repository of its own or one of another owner.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "logical_processors": os.cpu_count(),
        "processor_affinity": _affinity(),
        "git": _commit(),
        "packages": _packages(),
    }


def _affinity() -> list[int] | str:
    """Logical processors that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else UNKNOWN


def _packages() -> dict[str, str]:
    """Installed packages with their versions, as `pip freeze` lists them."""
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def versions(*packages: str) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    installed = {}
    for name in packages:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


@cache
def tell_without_git() -> None:
    """Tell once that no commit is recorded, if git is not installed."""
    if shutil.which("git") is None:
        note("git is not installed: runs do not record the commit")


def _commit() -> dict[str, str | bool]:
    top = git("rev-parse", "--show-toplevel")
    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no")
    if not top or Path(top).resolve() != ROOT or not commit or status is None:
        return {"commit": UNKNOWN, "changed": UNKNOWN}
    return {"commit": commit, "changed": bool(status)}


@cache
def changes() -> str:
    """Uncommitted changes of tracked files that git does not ignore, `LONGEST_DIFF` at most."""
    if environment()["git"]["changed"] is not True:
        return ""
    ignored = git("ls-files", "-z", "--cached", "--ignored", "--exclude-standard") or ""
    without = [f":(exclude,top,literal){name}" for name in ignored.split("\0") if name]
    text = git("diff", "HEAD", "--no-color", "--no-ext-diff", "--", ".", *without) or ""
    if len(text) <= LONGEST_DIFF:
        return text
    return f"{text[:LONGEST_DIFF]}\n[cut: {len(text):,} characters in all]\n"


def git(*arguments: str) -> str | None:
    """Output of git in the project's folder; None if there is no git, or it refuses."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def model_packages() -> list[str]:
    """Packages that serve the model, pinned: Keras, its backend and NumPy."""
    backend = sys.modules["keras"].backend.backend()
    return [f"{name}=={version}" for name, version in versions("keras", backend, "numpy").items()]
