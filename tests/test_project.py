"""Tests of the project's files: environments, documents and imports agree with the code."""

import ast
import re
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from pipeline import settings
from pipeline.registry import NETWORKS, OPTIMIZERS
from search.settings import ALL, INTRODUCTION
from tests.commands import ROOT

ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
PACKAGES = {
    "pipeline": {
        "": {"runs", "data"},  # errors, registry, settings, cli
        "browser": {"", "data"},
        "data": {""},
        "exported": {"", "data"},
        "networks": {"", "data"},
        "faces": {"", "data"},
        "runs": {"", "data"},
        "training": {"", "data", "networks", "runs"},
        "reports": {"", "data"},
        "steps": {
            "",
            "browser",
            "data",
            "exported",
            "faces",
            "networks",
            "runs",
            "training",
            "reports",
        },
    },
    "search": {
        "": {"methods"},
        "methods": {""},
        "jobs": set[str](),
        "grids": {"", "methods", "jobs"},
        "pages": {""},
        "studies": {"", "methods", "jobs", "grids", "comparisons", "pages"},
        "comparisons": {"", "jobs", "pages"},
        "report": {"", "grids"},
    },
}
"""The folders of a package that a folder may import; "" is the package itself."""
HOME = {
    "mlflow": {"pipeline/runs", "search"},
    "matplotlib": {"pipeline/reports", "search/grids"},
    "tensorflow": {"pipeline/data", "pipeline/networks", "pipeline/training"},
    "onnx": {"pipeline/exported"},
    "cleanlab": {"pipeline/reports"},
    "onnxruntime": {"pipeline/exported", "pipeline/faces"},
    "optuna": {"search"},
    "ray": {"search/jobs"},
}
"""The folders in which a library may be imported."""
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Full names of a file's imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_mlproject_passes_parameters_on_and_repeats_no_default(name: str) -> None:
    assert set(ENTRY_POINTS[name]) == {"command"}
    module = ENTRY_POINTS[name]["command"].removeprefix("python -m ")
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()


def test_the_environments_of_mlflow_and_conda_install_the_same_requirements() -> None:
    python_env = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    assert "python" not in python_env, "MLflow would then build that very version with pyenv"
    assert python_env["dependencies"] == ["-r requirements.txt"]
    assert conda["dependencies"][-1] == {"pip": python_env["dependencies"]}
    assert "python=3.13" in conda["dependencies"]


def test_every_direct_dependency_is_pinned_and_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {line.split(" ;")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert set(project["dependencies"]) <= locked
    for line in locked:
        assert line.startswith("#") or re.fullmatch(r"\S+==\S+", line), line
    for extra, pins in project["optional-dependencies"].items():
        assert all("==" in pin for pin in pins), extra
        if extra == "peers":  # for one benchmark, and 5 GB
            continue
        more = (ROOT / f"requirements-{extra}.txt").read_text()
        assert all(re.sub(r"\[.*?\]", "", pin).split(" ;")[0] in more for pin in pins), extra


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    place = file.relative_to(ROOT)
    package, folder = place.parts[0], place.parts[1] if len(place.parts) > 2 else ""
    for name in imports(file):
        parts = name.split(".")
        if parts[0] in HOME:
            homes = HOME[parts[0]]
            assert any(place.is_relative_to(home) for home in homes), f"{name} in {place}"
        if parts[0] == package and (ROOT / package / parts[1]).is_dir():
            assert parts[1] in PACKAGES[package][folder] | {folder}, f"{name} in {place}"
        if package == "pipeline":
            assert parts[0] != "search", f"{name} in {place}"


def test_entry_points_hold_no_code_of_the_library() -> None:
    for entry_point in ENTRY_POINTS.values():
        file = ROOT / f"{entry_point['command'].split()[-1].replace('.', '/')}.py"
        tree = ast.parse(file.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)], file


def test_only_evaluate_opens_the_test_split() -> None:
    for file in FILES:
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
        }
        if file != ROOT / "pipeline" / "steps" / "evaluate.py":
            assert "dataset.load" not in calls, file
            assert "pipeline.data.dataset.load" not in imports(file), file


def test_the_tests_that_reliability_names_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text()))
    written = "".join(file.read_text() for file in (ROOT / "tests").glob("*.py"))
    assert named
    assert named <= set(re.findall(r"def (test_\w+)\(", written))


def test_the_documented_settings_are_the_ones_in_use() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == f"{INTRODUCTION}\n{settings.markdown(*ALL)}", "run `make docs`"


def test_the_optimizers_are_those_of_keras() -> None:
    from keras.src.optimizers import ALL_OBJECTS_DICT

    wrappers = {"optimizer", "lossscaleoptimizer", "multioptimizer", "optimizermap"}
    assert {*OPTIMIZERS} - {"momentum"} == ALL_OBJECTS_DICT.keys() - wrappers


@pytest.mark.parametrize("network", ["compact", "strong"])
def test_the_documented_recipe_is_the_one_in_use(network: str) -> None:
    recipe = asdict(settings.recipe(settings.Hyperparameters, network))
    del recipe["network"]  # documented in another table
    documented: dict[str, str] = {}
    for line in (ROOT / "docs" / "training.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", cells[0])
        if len(cells) == 4 and names and set(names) <= recipe.keys():
            shared = network == "compact" or cells[3] == "the same"
            values = cells[2 if shared else 3].split(", ")
            documented |= dict(zip(names, values, strict=True))
    assert set(NETWORKS[network].recipe) <= documented.keys()
    for name, text in documented.items():
        value = recipe[name]
        switches = {True: "on", False: "off"}
        number_or_name = value if isinstance(value, str) else f"{value:g}"
        expected = switches[value] if isinstance(value, bool) else number_or_name
        assert text.lower().removesuffix(" (unused)") == expected, name


def test_a_share_is_written_in_percent_in_one_way() -> None:
    for file in FILES:
        assert not re.search(r":[+,]?\.\d%\}", file.read_text()), f"{file}: pipeline.percent"
