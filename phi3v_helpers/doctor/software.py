"""The doctor on Python and on packages: which are here, are they new enough, can they be imported?"""

import importlib
import importlib.metadata as metadata
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

from .. import __version__
from .report import fail, note, ok, reason

NAME = "phi3v-helpers"
SHOWN = {"torch": "torch", "transformers": "transformers", "pillow": "Pillow", "numpy": "numpy"}
MODULES = {
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "markdown-it-py": "markdown_it",
}  # else as the package
CHILD_SECONDS = 180
OPTIONAL = {  # package -> what is not there without it
    "anywidget": "forms have no place to drop pictures",
    "pypdfium2": "PDF documents cannot be opened",
    "pillow-heif": "HEIC photographs cannot be opened",
    "av": "videos cannot be opened",
    "jupyterlab": None,  # other programs show the lessons as well
    "matplotlib": "one lesson draws no chart",
}
LIGHT = ("anywidget", "pypdfium2", "pillow-heif", "av")  # sooner imported than asked about


def python():
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    wanted = _distribution().metadata["Requires-Python"] if _distribution() else ">=3.10"
    if _fits(platform.python_version(), wanted):
        yield ok("python", here)
    else:
        yield fail(
            "python", f"{here} is outside of {wanted}", "install a newer Python, and a new environment"
        )


def this_package():
    folder = Path(__file__).parents[2]
    if _distribution() is None:
        yield note(
            NAME,
            f"phi3v-helpers {__version__}, in {folder}, is not installed, so its requirements are not known",
            "pip install -e . in its folder",
        )
    else:
        yield ok(NAME, f"phi3v-helpers {__version__}, in {folder}")


def needed_packages():
    """One line for those that fit; one for each that does not."""
    wanted = _requirements()
    bad = [check for name, bounds in wanted.items() for check in _misfit(name, bounds, "fail")]
    missing = {check.name for check in bad}
    here = [f"{SHOWN[name]} {_version(name)}" for name in SHOWN if name not in missing and _version(name)]
    bad += _broken([name for name in wanted or SHOWN if name not in missing])
    if bad:
        yield from bad
    else:
        yield ok("packages", ", ".join(here))


def optional_packages():
    wanted = {name: bounds for name, bounds in _requirements(optional=True).items() if name in OPTIONAL}
    bad = [check for name, bounds in wanted.items() for check in _misfit(name, bounds, "note")]
    for name in (name for name in LIGHT if name in wanted and _version(name)):
        try:
            importlib.import_module(MODULES.get(name, name))
        except Exception as error:
            what = f"{name} {_version(name)} cannot be imported ({reason(error)})"
            bad.append(fail(name, what, f"pip install --force-reinstall {name}"))
    missing = {check.name for check in bad}
    fine = [f"{name} {_version(name)}" for name in wanted if name not in missing and _version(name)]
    if fine:
        yield ok("optional", f"Also here: {', '.join(fine)}")
    yield from bad


def _misfit(name, bounds, status_if_missing):
    """[] where the installed version fits, else a Check."""
    version = _version(name)
    if version is None and status_if_missing == "note":
        lacks = OPTIONAL[name]
        what = f"{name} is not installed, so {lacks}"
        return [note(name, what, f'pip install "{name}{bounds}"')] if lacks else []
    if version is None:
        return [fail(name, f"{name} is not installed", f'pip install "{name}{bounds}"')]
    if _fits(version, bounds):
        return []
    return [fail(name, f"{name} {version} does not fit, {bounds} is needed", f'pip install "{name}{bounds}"')]


def _broken(names):
    """A Check for each package that cannot be imported, [] where all can.

    A child process tries first: a library that crashes on import must not take the doctor along.
    """
    crash = None
    if sys.executable and "torch" not in sys.modules:
        crash = _crash([MODULES.get(name, name) for name in names])
    if crash:
        name, how = crash
        return [fail("import", f"{name} {how} when it is imported", f"pip install --force-reinstall {name}")]
    bad = []
    for name in names:
        try:
            importlib.import_module(MODULES.get(name, name))
        except (Exception, SystemExit) as error:
            what = f"{name} cannot be imported from {_place(MODULES.get(name, name))} ({reason(error)})"
            bad.append(fail("import", what, _repair(name)))
    return bad


def _crash(modules):
    """(module, what it does) where importing ends the process or takes for ever, else None."""
    code = (
        "import sys; sys.path[:] = sys.argv[2:]\n"
        "for name in sys.argv[1].split():\n"
        "    print(name, flush=True)\n"
        "    try: __import__(name)\n"
        "    except BaseException: pass\n"
        "print('all', flush=True)"
    )
    try:
        child = subprocess.run(
            [sys.executable, "-c", code, " ".join(modules), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=CHILD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        begun, how = error.stdout or b"", f"does not end within {CHILD_SECONDS} s"
    except OSError:
        return None  # no process can be started here, so the import itself must tell
    else:
        begun, how = child.stdout, f"ends Python (status {child.returncode})"
    lines = [line for line in begun.decode(errors="replace").splitlines() if line in ("all", *modules)]
    return None if not lines or lines[-1] == "all" else (lines[-1], how)


def _place(module):
    try:
        origin = importlib.util.find_spec(module).origin
    except Exception:
        origin = None
    return origin or "where it is"


def _repair(name):
    """What helps: a file of the user's own may stand in front of the package."""
    try:
        installed = Path(metadata.distribution(name).locate_file("")).resolve()
        if installed not in Path(_place(MODULES.get(name, name))).resolve().parents:
            return "this is not the installed package: rename that file, or take its folder out of PYTHONPATH"
    except Exception:  # not installed, or not as pip does it
        pass
    return f"pip install --force-reinstall {name}"


def _distribution():
    """The installed phi3v-helpers, or None. What pip wrote, before what a build left in the source folder."""
    found = list(metadata.distributions(name=NAME))
    return max(found, key=lambda one: one.read_text("RECORD") is not None, default=None)


def _requirements(optional=False):
    """{package: SpecifierSet} of what is always needed, or of the extras; {} where that is not known."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it comes with transformers, whose absence is told elsewhere
        return {}
    lines = (_distribution().requires if _distribution() else None) or []
    found = {}
    for requirement in map(Requirement, lines):
        extra = "extra" in str(requirement.marker)
        applies = extra or requirement.marker is None or requirement.marker.evaluate()
        if extra == optional and applies:
            found.setdefault(requirement.name, requirement.specifier)
    return found


def _version(name):
    """The installed version as str, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version, bounds):
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(str(bounds)).contains(version, prereleases=True)
