"""The lists of packages agree, the commands do what the README says, and the wheel holds what it must."""

import ast
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile

import pytest
import yaml
from nbtools import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings it there
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGE = ROOT / "phi3v_helpers"
# Where a module is not called as its package is.
PACKAGE_OF = {"PIL": "pillow", "markdown_it": "markdown-it-py", "pillow_heif": "pillow-heif"}


def parsed(lines):
    """Requirement lines, comments dropped, as {name: version range}."""
    lines = [line.split("#")[0].strip() for line in lines]
    requirements = [Requirement(line) for line in lines if line]
    return {requirement.name: requirement.specifier for requirement in requirements}


def lines_of(name):
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


# --- Lists of packages -----------------------------------------------------------------------------


def test_requirements_are_those_of_the_package_and_its_extras():
    extras = ("lab", "pdf", "heic", "video", "data", "batch", "serve", "remote", "tune", "test")
    wanted = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    assert parsed(lines_of("requirements.txt")) == parsed(wanted)


def test_each_requirement_says_where_it_is_used():
    assert [line for line in lines_of("requirements.txt") if line and "#" not in line] == []


def test_environment_takes_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, by_pip = environment["dependencies"]
    assert (pip, by_pip) == ("pip", {"pip": ["-r requirements.txt", "-e ."]})
    assert python == "python" + PROJECT["requires-python"]


def test_constraint_is_a_cpu_build_within_the_range():
    constraint = parsed(lines_of("constraints.txt"))
    assert list(constraint) == ["torch"]
    (version,) = [Version(clause.version) for clause in constraint["torch"] if clause.operator == "=="]
    assert version.local == "cpu"
    assert version in parsed(PROJECT["dependencies"])["torch"]


def test_colab_keeps_what_it_has():
    dependencies = parsed(PROJECT["dependencies"])
    assert "jupyterlab" not in dependencies
    assert "7.7.1" in dependencies["ipywidgets"], "Colab has ipywidgets 7.7.1; another one forces a restart"


def test_make_lab_has_what_the_widgets_like():
    assert set(EXTRAS["widgets"]) <= set(EXTRAS["lab"])
    assert "anywidget" not in parsed(PROJECT["dependencies"]), "Colab does without"


def test_flash_attn_is_only_an_extra():
    (requirement,) = [Requirement(line) for line in EXTRAS["flash-attn"]]
    assert requirement.name == "flash-attn" and "Linux" in str(requirement.marker)
    others = PROJECT["dependencies"] + EXTRAS["lab"] + EXTRAS["test"]
    assert "flash-attn" not in parsed(others)


def imported_packages(folder):
    """The third-party packages that a folder's modules import, wherever in the file."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    names -= set(sys.stdlib_module_names) | {"phi3v_helpers"}
    return {PACKAGE_OF.get(name, name) for name in names}


def brought_along(name):
    """The packages that an installed one requires, as modules are called."""
    requirements = [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return {
        requirement.name.lower().replace("-", "_")
        for requirement in requirements
        if "extra" not in str(requirement.marker)
    }


def test_whatever_the_package_imports_is_required():
    required = set(parsed(PROJECT["dependencies"]))
    required |= set().union(*[brought_along(name) for name in required])
    optional = {"google", "flash_attn"}  # used only where they are found
    extras = (
        "widgets",
        "pdf",
        "heic",
        "video",
        "data",
        "batch",
        "ray",
        "serve",
        "remote",
        "tune",
        "quantize",
    )
    optional |= {name for extra in extras for name in parsed(EXTRAS[extra])}
    assert {name.lower() for name in imported_packages(PACKAGE)} - required - optional == set()
    required |= set(parsed(EXTRAS["training"])) | {"training", "benchmarks"}
    assert {name.lower() for name in imported_packages(ROOT / "training")} - required == set()


# --- Commands --------------------------------------------------------------------------------------


def planned(*arguments, path=None):
    """What make would run, whatever the make that runs these tests was told."""
    told = {"PYTHON", "VENV", "TORCH", "LAB_ARGS", "TESTS", "JOBS", "ONLY", "MFLAGS"}
    environment = {
        name: value for name, value in os.environ.items() if name not in told and not name.startswith("MAKE")
    }
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def nvidia_smi(tmp_path):
    """Puts an nvidia-smi on the path that answers with a given exit status; returns its folder."""

    def put(status):
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\nexit {status}\n")
        script.chmod(0o755)
        return tmp_path

    return put


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch brings no CUDA packages")
def test_without_a_gpu_only_a_cpu_torch_can_be_installed(nvidia_smi, tmp_path):
    plan = planned("install", f"VENV={tmp_path}/venv", path=nvidia_smi(9))
    assert "whl/cpu" in plan and "install -c constraints.txt -r requirements.txt -e ." in plan
    assert plan.index("-r constraints.txt") < plan.index("-r requirements.txt")


def test_with_a_gpu_torch_is_not_held_back(nvidia_smi, tmp_path):
    plan = planned("install", f"VENV={tmp_path}/venv", path=nvidia_smi(0))
    assert "constraints.txt" not in plan and "whl/cpu" not in plan


def test_a_chosen_torch_is_taken(tmp_path):
    plan = planned("install", f"VENV={tmp_path}/venv", "TORCH=torch==2.9.1")
    assert 'install "torch==2.9.1"' in plan and "constraints.txt" not in plan


def test_install_does_nothing_twice(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / ".installed").touch()
    assert "pip" not in planned("install", f"VENV={tmp_path}")


def test_make_test_compares_pictures_too():
    plan = planned("test")
    assert "-p nbimages" in plan and "--nbval" in plan and "tests notebooks" in plan
    assert "install -y -qq chromium" in plan


@pytest.fixture
def make_browser(tmp_path):
    """Runs `make browser` where only the given commands exist, each a line of shell; returns what it prints."""

    def run(**commands):
        for name, line in commands.items():
            script = tmp_path / name.replace("_", "-")
            script.write_text(f"#!/bin/sh\n{line}\n")
            script.chmod(0o755)
        result = subprocess.run(
            [shutil.which("make"), "browser"],
            cwd=ROOT,
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_make_browser_installs_chromium_only_where_it_may(make_browser):
    assert make_browser(chromium="", apt_get="echo called", id="echo 0") == ""


@pytest.mark.parametrize("user, status", [("1000", 0), ("0", 1)])
def test_make_browser_never_fails(make_browser, user, status):
    out = make_browser(apt_get=f"exit {status}", id=f"echo {user}")
    assert out.splitlines()[-1].startswith("The tests in a browser will be skipped: install Chromium")


def test_make_browser_asks_debian_for_chromium(make_browser, tmp_path):
    out = make_browser(apt_get=f'echo "$@" >> {tmp_path}/asked', id="echo 0")
    assert out == "Installing chromium for the tests in a browser.\n"
    assert (tmp_path / "asked").read_text().splitlines() == ["update -qq", "install -y -qq chromium"]


def test_make_lab_opens_the_first_lesson_and_takes_large_uploads():
    plan = planned("lab")
    assert "notebooks/00_start_here.ipynb" in plan
    assert int(re.search(r"'websocket_max_message_size': (\d+)", plan)[1]) >= 200 * 2**20


def test_make_demo_asks():
    assert "-m phi3v_helpers demo" in planned("demo")


def test_an_old_python_is_refused_with_a_reason(tmp_path):
    old = tmp_path / "oldpython"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", f"PYTHON={old}", f"VENV={tmp_path}/venv", "install"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0 and "Python 3.10 or newer is needed" in result.stdout
    assert not (tmp_path / "venv").exists()


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "exec make test"


def test_the_tests_stay_on_this_machine():
    with pytest.raises(ConnectionRefusedError, match="offline"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_code_and_notebooks_are_clean():
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


# --- The wheel -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names of the files in a wheel built of a copy of this tree, and its size in bytes."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PACKAGE, folder / "phi3v_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "out"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = (folder / "out").glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_wheel_holds_the_whole_package(wheel):
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in files} - wheel == set()


def test_wheel_holds_the_tiny_model_and_the_samples(wheel):
    assert {"phi3v_helpers/tiny/model.safetensors", "phi3v_helpers/tiny/config.json"} <= wheel
    assert {"phi3v_helpers/samples/samples.json", "phi3v_helpers/samples/stock_chart.png"} <= wheel


def test_wheel_holds_nothing_else(wheel):
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"phi3v_helpers"}


def test_python_range_is_one_that_all_allow():
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.10")
