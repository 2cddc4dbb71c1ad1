"""Every error message that the package has: which of them the tests met, word for word, and which they never did.

    make messages        runs the tests with this plugin, and prints the list

As a plugin (`MESSAGES=file pytest -p messages`) it notes each Phi3VError when it is made. As a program it reads that.
"""

import ast
import json
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "phi3v_helpers"
KINDS = {"Phi3VError", "ImageError", "PromptError", "LoadError", "Trouble"}


def pytest_configure():
    file = os.environ.get("MESSAGES")
    if file:
        _note_all(file)


def _note_all(file):
    """Write a line for each error that is made, by whichever process of the tests."""
    from phi3v_helpers.errors import Phi3VError
    from phi3v_helpers.images.refusals import Trouble

    def noting(init):
        def noted(error, *args, **options):
            init(error, *args, **options)
            place = _place(sys._getframe(1))
            if place:
                with open(file, "a", encoding="utf-8") as lines:
                    lines.write(json.dumps([*place, str(error)]) + "\n")

        return noted

    for kind in (Phi3VError, Trouble):
        if "__init__" in vars(kind):
            kind.__init__ = noting(kind.__init__)


def _place(frame):
    """(file, line) of the package where the error was made, or None."""
    while frame and "__init__" in frame.f_code.co_name:
        frame = frame.f_back
    path = Path(frame.f_code.co_filename) if frame else Path()
    return (str(path.relative_to(PACKAGE)), frame.f_lineno) if PACKAGE in path.parents else None


def places():
    """{(file, first line, last line)} of the calls that make an error."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in KINDS:
                found.add((str(path.relative_to(PACKAGE)), node.lineno, node.end_lineno))
    return found


def main(file):
    met = {}
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        path, number, text = json.loads(line)
        met.setdefault((path, number), text)
    for path, first, last in sorted(places()):
        texts = [text for (where, number), text in met.items() if where == path and first <= number <= last]
        print(f"{path}:{first}: {texts[0] if texts else 'MET BY NO TEST'}")


if __name__ == "__main__":
    main(sys.argv[1])
