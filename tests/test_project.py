"""The files that describe the project agree with each other and with the code."""

import ast
import re
import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from pipeline import settings
from tests.conftest import ROOT

COMMANDS = {
    name: getattr(settings, f"{name.capitalize()}Settings")
    for name in yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
}

# Who may import what, besides the standard library; nobody below may import the entry points.
ENTRY_POINTS = {"ingest", "train", "evaluate", "main", "predict"}
LAYERS = {
    "settings": set(),
    "dataset": {"settings"},
    "augmentation": {"dataset", "settings"},
    "batches": {"augmentation", "dataset", "settings"},
    "optimization": {"dataset", "settings"},
    "sample": {"dataset"},
    "fer_csv": {"dataset"},
    "sources": {"dataset", "fer_csv", "sample"},
    "networks": {"dataset", "device", "settings"},
    "device": set(),
    "evaluation": {"dataset"},
    "figures": {"dataset", "evaluation"},
    "progress": set(),
    "quiet": set(),
    "lifetime": set(),
    "records": {"settings"},
    "training": {"batches", "dataset", "lifetime", "networks", "optimization", "settings"},
    "tracking": {"dataset", "evaluation", "figures", "lifetime", "records", "settings"},
    "command": {"lifetime", "settings", "tracking"},
}
HOME = {
    "mlflow": {"records", "tracking"},
    "matplotlib": {"figures"},
    "tensorflow": {"device"},
    "optuna": set(),
}


def imports(file: Path) -> set[str]:
    """Names of the packages and of the modules of `pipeline` that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "pipeline":
            found |= {f"pipeline.{name.name}" for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            found.add(".".join(parts[:2]) if parts[0] == "pipeline" else parts[0])
    return found


def of_the_network() -> set[str]:
    """Settings whose default depends on the network."""
    plain = asdict(settings.Training())
    recipes = [asdict(settings.recipe(settings.Training, name)) for name in settings.RECIPES]
    shape = {"width", "kernel"}
    others = {"momentum", "loss", "rotate", "erase", "mixup", "grow_at"}
    of_a_recipe = {name for name in plain if any(r[name] != plain[name] for r in recipes)}
    return (shape | others | of_a_recipe) - {"network"}


@pytest.mark.parametrize("name", COMMANDS)
def test_mlproject_declares_and_passes_every_setting_with_its_default(name: str) -> None:
    entry_point = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][name]
    expected = {field.name: field.default for field in fields(COMMANDS[name])}
    if issubclass(COMMANDS[name], settings.Training):
        expected = {key: value for key, value in expected.items() if key not in of_the_network()}
    declared = {key: value["default"] for key, value in entry_point["parameters"].items()}
    assert declared == expected
    passed = re.findall(r"--(\w+) {(\w+)}", entry_point["command"])
    assert passed == [(key, key) for key in expected]


def test_mlproject_names_the_settings_that_depend_on_the_network() -> None:
    comment = re.search(r"typed\):\n((?:#   .*\n)+)", (ROOT / "MLproject").read_text())
    assert comment is not None
    named = re.findall(r"\w+", comment[1])
    order = [field.name for field in fields(settings.Training)]
    assert named == [name for name in order if name in of_the_network()]


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
        more = (ROOT / f"requirements-{extra}.txt").read_text()
        assert all(re.sub(r"\[.*?\]", "", pin).split(" ;")[0] in more for pin in pins), extra


@pytest.mark.parametrize("file", sorted((ROOT / "pipeline").glob("*.py")), ids=lambda f: f.stem)
def test_imports_run_one_way(file: Path) -> None:
    found = imports(file)
    assert "search" not in found
    ours = {name.removeprefix("pipeline.") for name in found if name.startswith("pipeline.")}
    ours &= LAYERS.keys() | ENTRY_POINTS
    if file.stem not in ENTRY_POINTS and file.stem != "__init__":
        assert ours <= LAYERS[file.stem]
    for package, homes in HOME.items():
        assert package not in found or file.stem in homes, f"{package} in {file.name}"


def test_only_evaluate_opens_the_test_split() -> None:
    for file in [*(ROOT / "pipeline").glob("*.py"), *(ROOT / "search").glob("*.py")]:
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
        }
        imported = {
            name.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module == "pipeline.dataset"
            for name in node.names
        }
        if file.stem != "evaluate":
            assert "dataset.load" not in calls, file
            assert "load" not in imported, file


@pytest.mark.parametrize("network", ["compact", "strong"])
def test_the_documented_recipe_is_the_one_in_use(network: settings.NetworkName) -> None:
    recipe = asdict(settings.recipe(settings.Training, network))
    del recipe["network"]  # that table is another one
    documented: dict[str, str] = {}
    for line in (ROOT / "docs" / "training.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", cells[0])
        if len(cells) == 4 and names and set(names) <= recipe.keys():
            shared = network == "compact" or cells[3] == "the same"
            values = cells[2 if shared else 3].split(", ")
            documented |= dict(zip(names, values, strict=True))
    assert set(settings.RECIPES[network]) <= documented.keys()
    for name, text in documented.items():
        value = recipe[name]
        switches = {True: "on", False: "off"}
        number_or_name = value if isinstance(value, str) else f"{value:g}"
        expected = switches[value] if isinstance(value, bool) else number_or_name
        assert text.lower().removesuffix(" (unused)") == expected, name
