"""The package is light: what it needs is loaded when it is used."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import phi3v_helpers as p3v

HEAVY = ("torch", "numpy", "PIL", "transformers", "requests", "ipywidgets", "huggingface_hub")


def run(code, *flags):
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_importing_loads_nothing_heavy():
    loaded = run("import sys, phi3v_helpers; print(*sys.modules)").split()
    assert "phi3v_helpers" in loaded
    assert not [name for name in HEAVY if name in loaded]


def test_importing_takes_at_most_0_3_seconds():
    def seconds(code):
        started = time.perf_counter()
        run(code)
        return time.perf_counter() - started

    assert min(seconds("import phi3v_helpers") for _ in range(5)) < 0.3


def test_light_parts_stay_light():
    loaded = run(
        "import sys, phi3v_helpers as p; p.build_prompt('Hi', 1); p.samples.names(); print(*sys.modules)"
    )
    assert not [name for name in HEAVY if name in loaded.split()]
    loaded = run("import sys, phi3v_helpers as p; p.load_image; print(*sys.modules)")
    assert not [name for name in ("torch", "transformers", "requests") if name in loaded.split()]


@pytest.mark.parametrize("name", p3v.__all__)
def test_every_name_is_there_and_documented(name):
    value = getattr(p3v, name)
    assert name in dir(p3v)
    assert name == "__version__" or value.__doc__


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        p3v.lode  # noqa: B018
    assert not hasattr(p3v, "numpy")


@pytest.mark.parametrize(
    "first", ["", "import phi3v_helpers.demo, phi3v_helpers.samples, phi3v_helpers.model; "]
)
def test_demo_and_samples_are_usable_whatever_was_imported_before(first):
    code = f"import phi3v_helpers as p; {first}print(callable(p.demo), list(p.samples) == p.samples.names())"
    assert run(code).split() == ["True", "True"]


def test_version_is_that_of_the_package():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert f'version = "{p3v.__version__}"' in pyproject.read_text(encoding="utf-8")


def test_the_first_answer_comes_soon():
    """3 seconds on a quiet machine, most of them for importing torch and transformers; tests run beside each other."""
    ask = "import phi3v_helpers as p; p.load('tiny', verbose=False).ask(p.samples['shapes_1'], 'How many shapes?')"
    started = time.perf_counter()
    run(ask)
    assert time.perf_counter() - started < 12


def test_a_public_function_is_never_hidden_by_a_module_of_its_name():
    """Importing a submodule sets its name in the package, in the place of a function that is called so."""
    modules = {path.stem for path in Path(p3v.__file__).parent.iterdir()}
    assert not (modules - set(p3v._MODULES)) & set(p3v.__all__)
