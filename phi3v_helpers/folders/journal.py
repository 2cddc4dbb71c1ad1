"""What a run has done so far, in a file beside its output: whatever ends the process, it is there the next time.

A line each: eight digits of its CRC-32, a space, JSON. The first says which run it is, one which model answers, the
others are rows. Lines are only ever added, so a kill tears the last one at most; lines that do not fit their number are
as if they were not there. Lines reach the disk every few seconds, for when the power fails.
"""

import json
import os
import time
import zlib

from ..errors import Phi3VError
from .disk import explained, name_of

VERSION = 1
SYNC = 5  # seconds
LONGEST_HEADER = 1_000_000  # bytes; a longer first line is none of ours


class Journal:
    """run: dict of str -> [words, anything that JSON knows], what is asked: a run can go on where it is the same.

    fresh: drop what is there. Raises Phi3VError: of another run, damaged, or it cannot be written.
    failed: places whose error may pass, to be tried again.
    """

    def __init__(self, path, run, fresh=False):
        self.path = path
        self.model = None  # what answered so far: dict
        self.failed, self.errors = set(), set()
        self._starts = {}  # place -> where the line of its row begins
        self._end = 0
        self._synced = time.monotonic()
        with explained(path):
            self._file = open(path, "a+b", buffering=0)
        try:
            with explained(path):
                if fresh:
                    self._file.truncate(0)
                self._read(run)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __len__(self):
        return len(self._starts)

    def __contains__(self, place):
        return place in self._starts

    def set_model(self, model):
        """Say which model answers, a dict. Raises Phi3VError where another one did before."""
        if self.model is None:
            self._add({"model": model})
            self.model = model
        elif self.model != model:
            raise self._another("another model or other weights", self.model["name"], model["name"])

    def add(self, place, row, may_pass=False):
        """Write down a row (dict). may_pass: it is an error that need not come again."""
        entry = {"place": place, "row": row} | ({"may_pass": True} if may_pass else {})
        start = self._end
        self._add(entry)
        self._know(entry, start)

    def sync(self):
        """See to it that all of it is on the disk."""
        with explained(self.path):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def rows(self):
        """Iterator of (place, row), in the order of the places."""
        with open(self.path, "rb") as file:
            for place in sorted(self._starts):
                file.seek(self._starts[place])
                yield place, _entry(file.readline())["row"]

    def _read(self, run):
        with open(self.path, "rb") as file:
            first = file.readline(LONGEST_HEADER)
            header = _entry(first)
            if header is None and file.read(1):
                raise Phi3VError(
                    f"{name_of(self.path)} is damaged, or no journal.",
                    "Delete it, or give fresh=True (--fresh).",
                )
            if header is None:  # new, or its writer was killed at once
                self._begin(run)
                return
            self._end = len(first)
            for line in file:
                if not line.endswith(b"\n"):  # torn, and the last
                    self._file.truncate(self._end)
                    break
                if entry := _entry(line):
                    self._know(entry, self._end)
                self._end += len(line)
        difference = self._difference(header, run)
        if difference and len(self):
            raise difference
        if difference:  # of a run that came to nothing
            self._begin(run)

    def _begin(self, run):
        self._file.truncate(0)
        self._end, self.model = 0, None
        self._add({"version": VERSION, "run": run})

    def _know(self, entry, start):
        if "model" in entry:
            self.model = entry["model"]
            return
        place = entry["place"]
        self._starts[place] = start
        for places, is_one in ((self.failed, entry.get("may_pass")), (self.errors, entry["row"]["error"])):
            (places.add if is_one else places.discard)(place)

    def _difference(self, header, run):
        """The error for a header that is not of this run, or None."""
        if header.get("version") != VERSION:
            return self._another("another version of phi3v")
        for name, now in run.items():
            then = header["run"].get(name)
            if then != now:
                which = f"another {name}" if name == "model" else f"other {name}"
                return self._another(which, then and then[0], now[0])
        return None

    def _another(self, what, then=None, now=None):
        detail = f" ({then:.70}; now {now:.70})" if then and then != now else ""
        return Phi3VError(
            f"{name_of(self.path)} is of a run with {what}{detail}.",
            "Give the same as then, or another name for the output, or fresh=True (--fresh) to drop what was done.",
        )

    def _add(self, entry):
        text = json.dumps(entry).encode("ascii")
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        with explained(self.path):
            try:
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:])
                if time.monotonic() - self._synced > SYNC:
                    self.sync()
            except OSError:
                self._file.truncate(self._end)  # a full disk takes half a line
                raise
        self._end += len(line)


def _entry(line):
    """What a line says, or None where it is torn or damaged."""
    try:
        crc, text = line[:8], line[9:-1]
        return json.loads(text) if line.endswith(b"\n") and int(crc, 16) == zlib.crc32(text) else None
    except ValueError:
        return None
