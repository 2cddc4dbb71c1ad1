"""What a run leaves behind: a checkpoint while it goes on, an adapter and a report when it is done."""

import json
import os
from pathlib import Path

import torch

from ..errors import Phi3VError

CHECKPOINT, REPORT = "checkpoint.pt", "tuning.json"
TOLD = ("before", "after", "losses", "seconds")  # of a report, beside its settings


def save(folder, name, write):
    """`write(path)` beside the file and rename it, so that whoever is killed leaves the old one or the new one."""
    aside = Path(folder) / f".{name}.part"
    write(aside)
    os.replace(aside, Path(folder) / name)


def save_checkpoint(folder, state):
    save(folder, CHECKPOINT, lambda path: torch.save(state, path))


def read_checkpoint(folder, settings):
    """The state of a run that was broken off, or None. Raises Phi3VError: it had other settings, or is damaged."""
    path = Path(folder) / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before = state["settings"]
    except Exception as error:  # damaged files show in many ways
        raise Phi3VError(
            f"{path} cannot be read ({type(error).__name__}).", "Delete it to begin anew."
        ) from error
    _check_same(before, settings, folder)
    return state


def save_report(folder, report):
    text = json.dumps(report, indent=1) + "\n"
    save(folder, REPORT, lambda path: path.write_text(text, encoding="utf-8"))
    (Path(folder) / CHECKPOINT).unlink(missing_ok=True)


def read_report(folder, settings):
    """What a finished run said, as the fields of a `Tuned`, or None. Raises Phi3VError: it had other settings."""
    path = Path(folder) / REPORT
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        before, told = report["settings"], {name: report[name] for name in TOLD}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Phi3VError(f"{path} cannot be read.", "Delete it to begin anew.") from error
    _check_same(before, settings, folder)
    return told


def _check_same(before, settings, folder):
    for name, value in settings.items():
        if before.get(name) != value:
            shown = "" if name == "data" else f" ({before.get(name)!r}, now {value!r})"
            raise Phi3VError(
                f"{folder} holds a run with another {name}{shown}.", "Give the same again, or another folder."
            )
