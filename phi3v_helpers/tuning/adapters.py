"""LoRA beside the decoder's linear layers, with PEFT: put there to be trained, or read from a folder."""

import json
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import LoadError
from ..quantize import LAYERS
from .state import save

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
PLAIN = ("use_dora", "modules_to_save", "layers_to_transform", "layer_replication", "trainable_token_indices")


def peft():
    """The package. Raises LoadError where it cannot be imported."""
    try:
        import peft
    except Exception as error:  # not there, or of a time before this transformers
        raise LoadError(
            f"Adapters need the package peft, which cannot be imported ({type(error).__name__}).",
            'Install it: pip install "phi3v-helpers[tune]".',
        ) from error
    return peft


def new_adapter(model, rank, alpha, name):
    """A PeftModel around a Phi3VForCausalLM, with an adapter that changes nothing yet. name: of the model."""
    config = peft().LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(LAYERS), task_type="CAUSAL_LM", bias="none"
    )
    with _quietly():
        wrapped = peft().get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = name
    return wrapped


def save_adapter(wrapped, folder):
    """Write what `attach` reads, and every other program with PEFT. wrapped: a PeftModel."""
    # Not its save_pretrained, which asks the Hub about the model's vocabulary.
    weights = peft().get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save(folder, WEIGHTS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    wrapped.peft_config["default"].save_pretrained(folder)


def look_at_adapter(folder):
    """The settings and the shapes of an adapter: (dict, {module: {"A": shape, "B": shape}}). Raises LoadError."""
    folder = Path(folder).expanduser()
    settings = _settings(folder)
    pickled = [path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(f"adapter{kind}")]
    if pickled and not (folder / WEIGHTS).is_file():
        raise LoadError(
            f"{folder} has a pickled adapter only ({pickled[0]}), which can run code when it is read.",
            "Save it with safe_serialization=True where it was made.",
        )
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise LoadError(
            f"{folder / WEIGHTS} is missing, damaged or incomplete ({type(error).__name__}).",
            "Copy it again.",
        ) from error
    modules = {}
    for key, shape in shapes.items():
        match = KEY.fullmatch(key)
        if not match or len(shape) != 2:
            raise LoadError(f"{folder} holds {key[:80]!r}, which is not plain LoRA.", "Give a LoRA adapter.")
        modules.setdefault(match[1], {})[match[2]] = tuple(shape)
    if not modules or any(set(pair) != {"A", "B"} for pair in modules.values()):
        raise LoadError(f"{folder} lacks a part of its matrices.", "Copy it again, or train it anew.")
    return settings, modules


def attach(model, folder, merge):
    """The Phi3VForCausalLM with an adapter from a folder. merge: into its weights, so that it is as quick as before.

    Raises LoadError, also where the adapter is of another model.
    """
    settings, modules = look_at_adapter(folder)
    for name, shapes in modules.items():
        _check_fit(model, name, shapes, settings, folder)
    # Not the file's own settings, of which some would have PEFT do other things than read two matrices a layer.
    config = peft().LoraConfig(
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        use_rslora=bool(settings.get("use_rslora")),
        target_modules=sorted(modules),
        inference_mode=True,
    )
    with _quietly():
        wrapped = peft().PeftModel.from_pretrained(model, Path(folder).expanduser(), config=config)
    return wrapped.merge_and_unload() if merge else wrapped.get_base_model()


@contextmanager
def _quietly():
    """PEFT asks transformers by names that are going away."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _settings(folder):
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(
            f"{folder / CONFIG} cannot be read ({type(error).__name__}).",
            "Give the folder that p3v.tune wrote.",
        ) from error
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise LoadError(f"{folder} holds no LoRA adapter.", "Give the folder that p3v.tune wrote.")
    odd = [name for name in PLAIN if settings.get(name)]
    numbers = settings.get("r"), settings.get("lora_alpha")
    if odd or not all(isinstance(number, (int, float)) and number > 0 for number in numbers):
        raise LoadError(
            f"{folder} is not plain LoRA ({odd[0] if odd else 'r or lora_alpha is missing'}).",
            "Give a plain one.",
        )
    return settings


def _check_fit(model, name, shapes, settings, folder):
    try:
        layer = model.get_submodule(name)
        fits = shapes["A"] == (settings["r"], layer.in_features)
        fits = fits and shapes["B"] == (layer.out_features, settings["r"])
    except AttributeError:  # no such layer, or not a linear one
        fits = False
    if not fits:
        made_for = str(settings.get("base_model_name_or_path") or "another model")[:60]
        raise LoadError(
            f"{Path(folder).name} does not fit this model at {name}: it was made for {made_for}.",
            "Give the model that it was trained on.",
        )
