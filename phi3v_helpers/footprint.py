"""How many bytes a phi3_v model needs, counted from its shapes: weights, keys and values, and the work of computing.

Work is what the step that needs most holds at once, be it encoding a picture or reading the prompt. What is counted
are the tensors that PyTorch has alive there, and on a CPU the holes between them. Tests compare the sums with what
processes really needed.
"""

import functools
import json
import math
from dataclasses import dataclass

import torch

from .model import Phi3VConfig, Phi3VForCausalLM
from .model.cache import ROOM
from .model.modeling import CROPS_AT_ONCE, CROPS_AT_ONCE_ELSEWHERE
from .quantize import nbytes, shapes

FLOAT32 = 4  # bytes
# The C library keeps freed memory for the next layer (see `model/cpu.py`), and it lies in pieces. Measured with glibc.
HOLES = 0.3  # of what is alive; measured from 0.05 to 0.5, as the pieces happen to lie
HOLES_AT_LEAST = 12 * 10**6  # bytes


@dataclass(frozen=True)
class Footprint:
    """config: Phi3VConfig. device: its type, such as "cpu". itemsize: bytes of a number. attention: as transformers
    calls it. quantize: None, "8bit" or "4bit"."""

    config: Phi3VConfig
    device: str
    itemsize: int
    attention: str = "sdpa"
    quantize: str | None = None

    @property
    def weights(self):
        """Bytes of all parameters."""
        count = _parameters(self.config.to_json_string(use_diff=False))
        if self.quantize is None:
            return count * self.itemsize
        small, numbers = nbytes(self.config, self.quantize, self.device)
        return small + (count - numbers) * self.itemsize

    def image_tokens(self, rows, columns):
        """Tokens of a picture of so many crops."""
        size = self.config.vision_config.image_size
        return self.config.num_image_tokens(rows * size, columns * size)

    def kv_cache(self, tokens):
        """Bytes of the keys and values of so many tokens."""
        config = self.config
        width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
        return 2 * config.num_hidden_layers * width * tokens * self.itemsize

    def work(self, grids, prompt_tokens, answer_tokens):
        """Bytes beside weights and the keys and values of all tokens, at the step that needs most.

        grids: (rows, columns) of crops of each picture.
        """
        cache = self.kv_cache(prompt_tokens + answer_tokens)
        features = sum(self.image_tokens(*grid) for grid in grids) * self.config.hidden_size * self.itemsize
        reading = self._room(prompt_tokens, answer_tokens) + self._reading(prompt_tokens)
        encoding = max((self._encoding(*grid) for grid in grids), default=0)
        alive = features + max(reading, encoding)
        holes = HOLES * alive + HOLES_AT_LEAST if self.device == "cpu" else 0
        return max(0, int(alive + holes) - cache)

    def _room(self, prompt_tokens, answer_tokens):
        """What the cache takes, with the room that it leaves for more tokens (see `GrowingCache`)."""
        room, total = prompt_tokens, prompt_tokens + answer_tokens
        while True:
            room += max(ROOM, room // 8)
            if room >= total:
                return self.kv_cache(room)

    def _reading(self, tokens):
        """What a layer of the decoder holds while it reads a prompt."""
        config, item = self.config, self.itemsize
        mlp = (2 * config.hidden_size + 4 * config.intermediate_size) * item
        norm = 2 * config.hidden_size * item + 2 * config.hidden_size * FLOAT32
        attention = 8 * config.hidden_size * item
        scores = self._scores(tokens, config.num_attention_heads)
        # A matrix of 8 bits is multiplied as bfloat16, for which all of it is made.
        scores += 2 * max(map(math.prod, shapes(config))) if self.quantize == "8bit" else 0
        return tokens * max(mlp, norm, attention) + scores + 2 * tokens * config.hidden_size * item

    def _encoding(self, rows, columns):
        """What encoding one picture holds: its pixels, a few crops in a layer, the features so far."""
        vision, item = self.config.vision_config, self.itemsize
        crops = 1 + rows * columns
        side = self.config.tokens_per_crop_side
        pixels = crops * 3 * vision.image_size**2 * (FLOAT32 if self.device == "cpu" else 0)
        pixels += crops * 3 * vision.image_size**2 * (item if (self.device, item) != ("cpu", FLOAT32) else 0)
        at_once = min(crops, CROPS_AT_ONCE.get(self.device, CROPS_AT_ONCE_ELSEWHERE))
        places = 1 + (vision.image_size // vision.patch_size) ** 2
        layer = at_once * places * (2 * vision.hidden_size + 4 * vision.intermediate_size) * item
        layer += at_once * self._scores(places, vision.num_attention_heads)
        merged = crops * side**2 * 4 * vision.hidden_size * item
        projected = (
            2 * self.image_tokens(rows, columns) * (2 * vision.hidden_size + self.config.hidden_size) * item
        )
        return pixels + max(layer + merged, 2 * merged, merged + projected)

    def _scores(self, tokens, heads):
        """Attention weights; only eager attention has all of them at once, in float32 too."""
        if self.attention != "eager":
            return 0
        return heads * tokens**2 * (FLOAT32 + self.itemsize)


@functools.lru_cache(maxsize=8)
def _parameters(config):
    """How many parameters a model of this config (JSON) has. Nothing is allocated."""
    settings = json.loads(config)
    layers, vision_layers = settings["num_hidden_layers"], settings["vision_config"]["num_hidden_layers"]
    # Of few layers, as a file may ask for a million of them; all layers of a kind are alike.
    fewest, one_more, one_more_of_vision = (_count(settings, *few) for few in ((1, 2), (2, 2), (1, 3)))
    more = (layers - 1) * (one_more - fewest) + (vision_layers - 2) * (one_more_of_vision - fewest)
    return fewest + more


def _count(settings, layers, vision_layers):
    vision = {**settings["vision_config"], "num_hidden_layers": vision_layers}
    config = Phi3VConfig(**{**settings, "num_hidden_layers": layers, "vision_config": vision})
    with torch.device("meta"):
        return Phi3VForCausalLM(config).num_parameters()
