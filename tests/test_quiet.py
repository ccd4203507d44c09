"""TensorFlow's import prints nothing, unless it fails. Of a command test_predict.py shows it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline.quiet import held_back_stderr

NOISE = "import os; os.write(2, b'loading the library\\n')\n"
"""A module that writes as compiled code does, past Python's sys.stderr."""


def python(code: str, folder: Path, environment: dict[str, str], **more: str) -> tuple[str, int]:
    """What `code` writes to standard error in a process of its own, and its exit status."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder, env={**environment, **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr, done.returncode


@pytest.mark.slow
def test_a_job_of_a_search_says_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "own.py").write_text(
        "def job(tell):\n    import keras\n    return keras.ops.ones(3)"
    )
    code = """
        import threading, own
        from search.jobs import job
        if __name__ == "__main__":
            outcome = job.run(own.job, stop=threading.Event())
            assert outcome.kind == "returned", outcome
    """
    (tmp_path / "main.py").write_text(textwrap.dedent(code))
    assert python(
        "import runpy; runpy.run_path('main.py', run_name='__main__')", tmp_path, environment
    ) == ("", 0)


def test_an_import_that_fails_shows_what_was_held_back(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "tensorflow.py").write_text(NOISE + "raise ImportError('no such library')")
    stderr, status = python("import pipeline, tensorflow", tmp_path, environment)
    assert stderr.startswith("loading the library\nTraceback")
    assert "ImportError: no such library" in stderr
    assert status == 1


def test_what_comes_before_and_after_is_shown(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "tensorflow.py").write_text(NOISE)
    code = """
        import pipeline, sys, warnings
        sys.stderr.write("before, ")
        import tensorflow
        warnings.warn("after")
    """
    stderr, _ = python(code, tmp_path, environment)
    assert stderr.startswith("before, ")
    assert "UserWarning: after" in stderr
    assert "loading" not in stderr


def test_a_log_level_of_the_users_shows_all(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "tensorflow.py").write_text(NOISE)
    code = "import pipeline, tensorflow"
    assert (
        python(code, tmp_path, environment, TF_CPP_MIN_LOG_LEVEL="0")[0] == "loading the library\n"
    )


@pytest.mark.parametrize("stderr", ["sys.stderr.close()", "sys.stderr = None", "os.close(2)"])
def test_a_process_without_standard_error_imports_all_the_same(
    stderr: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "tensorflow.py").write_text("import os\nloaded = True")
    code = f"import os, sys, pipeline; {stderr}; import tensorflow; assert tensorflow.loaded"
    assert python(code, tmp_path, environment)[1] == 0


def test_it_works_while_pytest_captures(capfd: pytest.CaptureFixture[str]) -> None:
    with held_back_stderr():
        os.write(2, b"held back")
    with pytest.raises(OSError, match="broken"), held_back_stderr():  # noqa: PT012
        os.write(2, b"shown")
        raise OSError("broken")
    assert capfd.readouterr().err == "shown"
