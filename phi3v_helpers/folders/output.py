"""The file of answers: Parquet, JSONL or CSV, complete or not there at all."""

import csv
import json
import os
from itertools import islice
from pathlib import Path

from ..errors import Phi3VError, PromptError
from ..needs import needed
from .disk import explained

COLUMNS = {
    "picture": str,
    "question": str,
    "answer": str,
    "model": str,
    "prompt_tokens": int,
    "new_tokens": int,
    "seconds": float,
    "finished": bool,
    "error": str,
}
GROUP = 10_000  # rows of Parquet that are in memory at once


class Output:
    """out: path whose ending says the format. Raises Phi3VError: no such format or folder, or pyarrow is absent."""

    def __init__(self, out):
        self.path = Path(os.path.expanduser(os.fspath(out))).absolute()
        writers = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}
        self._write = writers.get(self.path.suffix.lower())
        name = self.path.name[-60:]
        if self._write is None:
            raise PromptError(
                f"The ending of {name!r} names no format of answers.",
                "Give a name that ends in .parquet, .jsonl or .csv.",
            )
        if self._write is _parquet:
            _pyarrow()
        if not self.path.parent.is_dir():
            raise Phi3VError(
                f"There is no folder {str(self.path.parent)[-80:]!r}.",
                f"Make it first; {name} is to go there.",
            )
        if self.path.is_dir():
            raise Phi3VError(f"{name!r} is a folder.", "Give the name of a file.")

    @property
    def journal(self):
        return f"{self.path}.journal"

    def refuse_to_replace(self):
        """Raises Phi3VError where there is an output, and no journal that says what it is."""
        if self.path.exists() and not os.path.exists(self.journal):
            raise Phi3VError(
                f"{self.path.name[-60:]} is there already, and no journal beside it says of which run.",
                "Give another name, or fresh=True (--fresh) to replace it.",
            )

    def write(self, rows):
        """Write rows, an iterator of dicts with all COLUMNS. Until all are on the disk the old file stays."""
        part = self.path.with_name(f"{self.path.name}.part")
        with explained(self.path):
            try:
                with open(part, "wb") as file:
                    self._write(file, map(_clean, rows))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, self.path)
            except OSError:
                part.unlink(missing_ok=True)  # makes room for the journal, too
                raise
            if os.name == "posix":  # elsewhere folders cannot be opened
                folder = os.open(self.path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)


def _clean(row):
    """No lone surrogates, which names of files may have and no format can hold."""
    return {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in ((name, row[name]) for name in COLUMNS)
    }


def _jsonl(file, rows):
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _csv(file, rows):
    import io

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    finally:
        text.detach()


def _parquet(file, rows):
    parquet = _pyarrow()
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _pyarrow():
    with needed("pyarrow", "Parquet", "batch"):
        import pyarrow.parquet as parquet
    return parquet
