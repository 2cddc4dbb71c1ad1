"""What the doctor found: one Check a line, without secrets and without the user's name."""

import getpass
import re
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

MARKS = {"ok": "OK", "note": "NOTE", "fail": "FAIL"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    name: str, what it is about, for programs. status: "ok", "note" (works, but could be better) or "fail".
    what: str, what was found. advice: str, what to do about it; "" where nothing is to be done.
    """

    name: str
    status: str
    what: str
    advice: str = ""

    def line(self, width=None):
        """The check in words, in lines of `width` characters; None is one line."""
        text = f"{MARKS[self.status]:<6}{self.what}" + (f": {self.advice}" if self.advice else "")
        if width is None:
            return text
        return textwrap.fill(
            text, width, subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False
        )


class Report(list):
    """A list of Check that shows one of them a line."""

    @property
    def ok(self):
        """Whether nothing failed; notes are no failures."""
        return all(check.status != "fail" for check in self)

    def as_dict(self):
        """What can be written as JSON: {"ok": bool, "checks": a list of dicts}."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self]}

    def __repr__(self):
        return "\n".join(check.line() for check in self)


def ok(name, what):
    return Check(name, "ok", tidy(what))


def note(name, what, advice):
    return Check(name, "note", tidy(what), tidy(advice))


def fail(name, what, advice):
    return Check(name, "fail", tidy(what), tidy(advice))


def reason(error, most=160):
    """An exception in a few words: its kind, and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    first = lines[0].strip().rstrip(".")
    first = first if len(first) <= most else first[:most] + "…"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def tidy(text):
    """The home folder as ~, the user's name out of other paths, passwords and keys out of addresses."""
    text = re.sub(r"(\w+://)[^/\s@]*@", r"\1", str(text))
    text = re.sub(r"(\w+://[^\s?]+)\?\S+", r"\1", text)
    text = re.sub(r"\bhf_\w{8,}", "hf_…", text)
    for home in {str(folder) for folder in _homes()}:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    for name in _user():
        text = re.sub(rf"(?<=[/\\]){re.escape(name)}(?=[/\\]|$)", "<user>", text)
    return text


def _homes():
    try:
        home = Path.home()
        return [folder for folder in (home, home.resolve()) if len(folder.parts) > 1]  # not "/"
    except (RuntimeError, OSError):
        return []


def _user():
    try:
        return [getpass.getuser()]
    except Exception:  # KeyError, ImportError or OSError, where the user has no name
        return []
