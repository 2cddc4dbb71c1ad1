"""The model as its published code runs it, on the same weights: what ours is measured against.

Written from what that code does, see `phi3v_helpers/model/modeling.py` for the model: every picture is 17 crops, zeros
included; CLIP runs all of its layers; attention is eager, with a mask for every pair of tokens; every token gets its
logits, in float32; keys and values are put together anew for each token; nothing is kept between questions; one prompt
at a time.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from phi3v_helpers.model import Phi3VForCausalLM

SIZE = 336


def preprocess(image: Image.Image, num_crops: int = 16):
    """(pixel_values (1, num_crops + 1, 3, 336, 336), image_sizes (1, 2)), one whole pass after the other."""
    image = image.convert("RGB")
    width, height = image.size
    transposed = width < height
    if transposed:
        image = image.transpose(Image.Transpose.TRANSPOSE)
        width, height = image.size
    scale = 1
    while scale * math.ceil(scale * height / width) <= num_crops:
        scale += 1
    new_width = (scale - 1) * SIZE
    new_height = int(new_width / (width / height))
    image = image.resize((new_width, new_height), Image.Resampling.BILINEAR)
    missing = math.ceil(new_height / SIZE) * SIZE - new_height
    padded = Image.new("RGB", (new_width, new_height + missing), (255, 255, 255))
    padded.paste(image, (0, missing // 2))
    if transposed:
        padded = padded.transpose(Image.Transpose.TRANSPOSE)

    pixels = torch.from_numpy(np.array(padded)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    pixels = pixels.clone().sub_(mean).div_(std)  # (3, H, W)
    overview = torch.nn.functional.interpolate(pixels[None].float(), size=(SIZE, SIZE), mode="bicubic")
    rows, columns = pixels.shape[1] // SIZE, pixels.shape[2] // SIZE
    crops = pixels[None].reshape(1, 3, rows, SIZE, columns, SIZE).permute(0, 2, 4, 1, 3, 5)
    crops = crops.reshape(-1, 3, SIZE, SIZE).contiguous()
    crops = torch.cat([overview, crops])
    zeros = torch.zeros(num_crops + 1 - len(crops), 3, SIZE, SIZE)
    return torch.stack([torch.cat([crops, zeros])]), torch.tensor([list(pixels.shape[1:])])


class Published:
    """The published way, sharing the weights of `model`."""

    def __init__(self, model):
        with torch.device("meta"):
            config = copy.deepcopy(model.config)  # or `model` would attend eagerly too
            self.model = Phi3VForCausalLM._from_config(config, attn_implementation="eager")
        self.model.load_state_dict(model.state_dict(), assign=True)
        self.model.eval()
        for own, other in zip(self.model.modules(), model.modules()):  # position ids and the like
            for name, buffer in other.named_buffers(recurse=False):
                own._buffers[name] = buffer
        self.token = model.config.image_token_id

    @torch.inference_mode()
    def encode(self, pixel_values, image_sizes):
        """Token embeddings of the pictures: a list of (tokens, D)."""
        vision = self.model.model.vision_embed_tokens
        tower = vision.img_processor.vision_model
        hidden = tower.pre_layrnorm(tower.embeddings(pixel_values.flatten(0, 1)))
        states = [hidden]
        for layer in tower.encoder.layers:
            states.append(layer(states[-1], attention_mask=None))
        features = states[-2][:, 1:].unflatten(0, pixel_values.shape[:2])  # (N, 17, patches, C)
        tokens = []
        for picture, (height, width) in zip(features, image_sizes.tolist()):
            rows, columns = height // SIZE, width // SIZE
            crops = vision.merge_patches(picture)[: 1 + rows * columns]
            tokens.append(vision.img_projection(vision.arrange(crops, rows, columns)))
        return tokens

    @torch.inference_mode()
    def prefill(self, ids, features=()):
        """Reads a prompt, ids (1, T): (logits (1, T, vocabulary) float32, cache)."""
        embeddings = self.model.model.embed_tokens(ids)
        if features:
            embeddings[ids == self.token] = torch.cat(list(features)).to(embeddings)
        length = ids.shape[1]
        mask = torch.full((length, length), torch.finfo(embeddings.dtype).min, dtype=embeddings.dtype).triu(1)
        cache = DynamicCache()
        output = self.model.model(
            inputs_embeds=embeddings, attention_mask=mask.to(ids.device)[None, None], past_key_values=cache,
            position_ids=torch.arange(length, device=ids.device)[None], use_cache=True,
        )  # fmt: skip
        return self.model.lm_head(output.last_hidden_state).float(), cache

    def write(self, ids, cache, new_tokens: int) -> list[int]:
        """Greedy, without an end token; keys and values of all of `ids` (1, T) but the last are in the cache."""
        return generate(self.model, ids, cache, new_tokens)

    def ask(self, processor, image, prompt: str, new_tokens: int) -> list[int]:
        """Everything from the picture to the new tokens."""
        pixel_values, image_sizes = preprocess(image)
        features = self.encode(pixel_values.to(self.model.device, self.model.dtype), image_sizes)
        ids, _ = processor.prompt_ids(prompt, [len(features[0])])
        ids = torch.tensor([ids], device=self.model.device)
        logits, cache = self.prefill(ids, features)
        first = logits[:, -1].argmax(-1, keepdim=True)
        rest = self.write(torch.cat([ids, first], dim=1), cache, new_tokens - 1) if new_tokens > 1 else []
        return [int(first), *rest]


@torch.inference_mode()
def generate(model, ids, cache, new_tokens: int) -> list[int]:
    """`model.generate` for so many tokens, whatever they are; the cache holds all of `ids` (1, T) but the last."""
    model.generation_config.eos_token_id = None
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, max_new_tokens=new_tokens,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
    return output[0, ids.shape[1] :].tolist()
