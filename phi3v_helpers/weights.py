"""Name of a model -> the folder with its files: embedded, on this machine, or downloaded.

Known models are pinned to one revision of their files, so that nothing changes under a lesson. These are the
revisions that public code and bug reports name; `revision="main"` takes the newest.
"""

import difflib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import LoadError

TINY_FOLDER = Path(__file__).parent / "tiny"
TINY_NAME = "tiny phi3v (embedded)"
ABANDONED = 3600  # seconds since anything was written to a part of a file
PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model"]


@dataclass(frozen=True)
class Known:
    """A published model. repo: its id on the Hugging Face Hub. revision: a commit. size: bytes of weights."""

    repo: str
    revision: str
    size: int = 8_293_242_880


KNOWN = {
    "phi-3-vision": Known("microsoft/Phi-3-vision-128k-instruct", "c45209e90a4c4f7d16b2e9d48503c7f3e83623ed"),
    "phi-3.5-vision": Known("microsoft/Phi-3.5-vision-instruct", "12b77fb40b63a2c73c68243d3f767aab688a1b2a"),
}


def find_weights(name, revision=None):
    """The files of a model.

    name: "tiny", a short name of KNOWN, an id of the Hugging Face Hub ("owner/model"), or a folder.
    revision: branch, tag or commit on the Hub; None is the pinned one, or "main" of models not KNOWN.
    Returns (folder as Path, name for people as str). What is not here is downloaded. Raises LoadError.
    """
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else None
    if not text:
        raise LoadError(f"The model is {name!r}.", "Give its name or its folder as a string.")
    if text == "tiny":
        return _checked(TINY_FOLDER), TINY_NAME
    if Path(text).expanduser().is_dir():
        folder = Path(text).expanduser()
        return _checked(folder), folder.resolve().name
    known = known_model(text)
    if known:
        return download(known.repo, revision or known.revision), known.repo
    if isinstance(name, str) and _is_id(text):
        return download(text, revision or "main"), text
    raise LoadError(f"There is no model {text!r}.", _suggestion(text))


def find_here(name, revision=None):
    """As `find_weights`, but where something would have to be downloaded: (None, name for people)."""
    known = known_model(name) if isinstance(name, str) else None
    if known:
        return _cached(known.repo, revision or known.revision), known.repo
    if isinstance(name, str) and name != "tiny" and _is_id(name):
        return _cached(name, revision or "main"), name
    return find_weights(name, revision)


def known_model(name):
    """The Known model of a short name or Hub id, or None."""
    for short, known in KNOWN.items():
        if name.lower() in (short, known.repo.lower()):
            return known
    return None


def _is_id(text):
    """Whether it may be an id of the Hub, such as "owner/model", and is no folder."""
    return text.count("/") == 1 and text[0] not in "./~" and not Path(text).is_dir()


def _suggestion(name):
    names = ["auto", "tiny", *KNOWN]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    start = f"Did you mean {close[0]!r}? " if close else ""
    return f"{start}Give {', '.join(names)}, owner/model of the Hugging Face Hub, or a folder that exists."


def at_hand(known):
    """Whether all files of a Known model are on this machine already."""
    return _cached(known.repo, known.revision) is not None


def obstacle_to_download(known):
    """Why a Known model cannot be downloaded now: a few words, or None."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    disk = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if shutil.disk_usage(disk).free < known.size * 1.05:
        return f"the disk has no {known.size / 1e9:.1f} GB left for its weights"
    try:
        _ask_hub(known.repo, known.revision)
    except Exception:  # no network, offline mode, a proxy, an outage: all the same here
        return "its weights are not on this machine and the Hugging Face Hub cannot be reached"
    return None


def download(repo, revision):
    """Folder with the files of a model of the Hub, downloaded unless they are here. Raises LoadError."""
    from huggingface_hub import hf_hub_download, snapshot_download

    # A commit never changes, so what is here need not be asked for again; a branch may have moved on.
    folder = _cached(repo, revision) if len(revision) == 40 else None
    if folder:
        return folder
    _remove_leftovers(repo)
    try:
        _ask_hub(repo, revision)
        config = hf_hub_download(repo, "config.json", revision=revision)
        _check_type(Path(config).parent, repo)  # before gigabytes of another model are fetched
        folder = snapshot_download(repo, revision=revision, allow_patterns=PATTERNS)
        if _remove_damaged(Path(folder)):
            folder = snapshot_download(repo, revision=revision, allow_patterns=PATTERNS)
    except LoadError:
        raise
    except Exception as error:  # the Hub's client raises its own, its network library's and the disk's
        folder = _cached(repo, revision)  # perhaps not the newest, but here
        if folder is None:
            raise _download_failed(error, repo, revision) from error
    return _checked(Path(folder), repo)


def _ask_hub(repo, revision):
    """Fails at once where the Hub is out of reach; a download would try for half a minute first."""
    from huggingface_hub import HfApi

    HfApi().model_info(repo, revision=revision, timeout=5)


def _cached(repo, revision):
    """The folder of a complete download, or None."""
    from huggingface_hub import snapshot_download

    try:
        return _checked(Path(snapshot_download(repo, revision=revision, local_files_only=True)), repo)
    except Exception:  # not here, or not all of it
        return None


def _remove_leftovers(repo):
    """Remove gigabytes that killed downloads left behind: newer clients of the Hub begin such a file anew."""
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs"
    for path in blobs.glob("*.incomplete"):
        try:
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
        except OSError:  # gone meanwhile, or another user's
            pass


def _remove_damaged(folder):
    """Remove downloaded weights that cannot be opened, which the Hub's client takes for complete. Returns how many."""
    damaged = [path for path in folder.glob("*.safetensors") if not _opens(path)]
    for path in damaged:
        path.resolve().unlink(missing_ok=True)  # the file that the link in the folder leads to
        path.unlink(missing_ok=True)
    return len(damaged)


def _download_failed(error, repo, revision):
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return LoadError(f"{repo!r} is not an id of the Hugging Face Hub.", _suggestion(repo))
    if isinstance(error, errors.GatedRepoError):
        return LoadError(f"{repo} is gated.", "Ask for access on its page, then log in with `hf auth login`.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return LoadError(f"The Hugging Face Hub has no model {repo!r}, or it is private.", _suggestion(repo))
    if isinstance(error, errors.RevisionNotFoundError):
        return LoadError(f"{repo} has no revision {revision!r}.", 'Give another, such as revision="main".')
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return LoadError(
            f"{repo} has no config.json: it is not a model for transformers.", "Give another id."
        )
    if isinstance(error, OSError) and error.errno == 28:
        return LoadError(
            f"The disk is full: {repo} could not be saved.", "Make room, or set HF_HOME elsewhere."
        )
    return LoadError(
        f"{repo} is not on this machine and could not be downloaded ({type(error).__name__}).",
        'Go online once, give a folder that has its files, or use the tiny model: p3v.load("tiny").',
    )


def _checked(folder, name=None):
    """The folder, if it holds a complete phi3_v model. Raises LoadError that says what is missing."""
    name = name or folder
    if not (folder / "config.json").is_file():
        raise LoadError(f"{name} has no config.json.", "Give the folder that save_pretrained wrote.")
    _check_type(folder, name)
    missing = _missing_files(folder)
    pickled = [path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind)]
    if pickled and "model.safetensors" in missing:
        raise LoadError(
            f"{name} has pickled weights only ({pickled[0]}), which can run code when they are read.",
            "Take a copy with .safetensors files, or convert them on a machine that may be harmed.",
        )
    if missing:
        raise LoadError(f"{name} lacks {_some(missing)}.", "Copy or download these files again.")
    damaged = [path.name for path in sorted(folder.glob("*.safetensors")) if not _opens(path)]
    if damaged:
        raise LoadError(
            f"{name} has weights that are damaged or incomplete: {_some(damaged)}.",
            "Copy or download these files again.",
        )
    return folder


def _some(names):
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if names[3:] else "")


def _opens(path):
    """Whether a safetensors file is one, and as long as its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _check_type(folder, name):
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "phi3_v":
        raise LoadError(
            f"{name} holds a model of type {config.get('model_type')!r}, not 'phi3_v'.",
            f"Give Phi-3-vision, Phi-3.5-vision or a model made from them: {', '.join(KNOWN)}.",
        )


def _missing_files(folder):
    missing = [] if (folder / "tokenizer.json").is_file() else ["tokenizer.json"]
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        missing.append("preprocessor_config.json")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(_read_json(index).get("weight_map", {}).values()))
        return missing + [shard for shard in shards if not (folder / shard).is_file()]
    return missing if (folder / "model.safetensors").is_file() else [*missing, "model.safetensors"]


def _read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read as JSON.", "Copy or download it again.") from error
    return content if isinstance(content, dict) else {}
