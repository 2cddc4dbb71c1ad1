"""From a prompt and its pictures to new tokens, with nothing computed twice.

`Phi3Vision` checks questions and words answers; what is between is here. Not for several threads at once.
"""

import hashlib
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StaticCache, StoppingCriteriaList

from .kept import Kept, usual_budget
from .model.cache import GrowingCache, side_by_side
from .model.cpu import at_best

ENDS = ("<|end|>", "<|endoftext|>")  # either ends an answer
LONG = 128  # tokens of an answer, from which on compiled steps are used
STEP = 1024  # tokens; a compiled step is for a cache of one size, so few sizes are used


@dataclass(frozen=True)
class Inputs:
    """A prompt as the model gets it.

    ids: list of T ints. features: list of (tokens, D), the pictures in the order of their tags. signature: int64 (T,),
    the ids, with a number of their own for the tokens of each picture.
    """

    ids: list
    features: list
    signature: torch.Tensor


@dataclass(frozen=True)
class Written:
    """What `Engine.write` gives: ids (list of int) of the new tokens, how many tokens of the prompt were known."""

    ids: list
    reused: int


class NoPictures(LogitsProcessor):
    """Keeps a model from writing `<|image|>`, as none that was trained does: it would ask for a picture."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        scores[:, self.token] = -torch.inf
        return scores


class Engine:
    """model: Phi3VForCausalLM. processor: its Phi3VProcessor. budget: bytes for what is kept; None is `usual_budget`.

    compiled: write long answers with compiled steps, which transformers makes on a CUDA GPU for caches of a fixed size.
    """

    def __init__(self, model, processor, budget=None, compiled=False):
        self.model, self.processor = model, processor
        self.kept = Kept(usual_budget(model.device) if budget is None else budget)
        self.compiled = compiled
        self._fixed = {}  # size -> StaticCache
        self.ends = processor.tokenizer.convert_tokens_to_ids(list(ENDS))

    @torch.inference_mode()
    def read(self, prompt, images, num_crops):
        """Tokenize, and encode the pictures that are not known. images: PIL. Returns Inputs."""
        num_crops = num_crops or self.processor.image_processor.num_crops
        keys = [_key(image, num_crops) for image in images]
        features = [self._features(*pair, num_crops) for pair in zip(keys, images)]
        ids, tags = self.processor.prompt_ids(prompt, [len(one) for one in features])
        signature = torch.tensor(ids)
        places = (signature == self.processor.image_token_id).nonzero().flatten()
        for tag, part in zip(tags, places.split([len(features[tag - 1]) for tag in tags])):
            signature[part] = keys[tag - 1]
        return Inputs(ids, [features[tag - 1] for tag in tags], signature)

    @torch.inference_mode()
    def write(self, inputs, max_new_tokens, stopping=(), streamer=None, constraint=None, **sampling):
        """The answer to one prompt. constraint: a LogitsProcessor. sampling: as for `generate`. Returns Written."""
        guesses = "prompt_lookup_num_tokens" in sampling
        is_fixed = self.compiled and max_new_tokens >= LONG and not guesses
        if guesses:  # transformers would read the whole prompt once more, behind what is in the cache
            cache, reused = GrowingCache(), 0
        elif is_fixed:
            cache, reused = self._fixed_cache(len(inputs.ids) + max_new_tokens), 0
        else:
            cache, reused = self.kept.beginning(inputs.signature, self._rotated_alike(len(inputs.ids)))
        output = self._generate(
            [inputs],
            max_new_tokens,
            stopping,
            constraint,
            streamer=streamer,
            past_key_values=cache,
            **sampling,
        )
        new = output.sequences[0, len(inputs.ids) :].tolist()
        if not is_fixed:
            signature = torch.cat([inputs.signature, torch.tensor(new).long()])
            # The last token was never read; where there is something for it, it is that of a wrong guess.
            self.kept.keep_text(signature[:-1], output.past_key_values)
        return Written(new, reused)

    @torch.inference_mode()
    def write_many(self, batch, max_new_tokens, stopping=(), **sampling):
        """The answers to several prompts at once, a list of lists of ids, each up to its end token.

        Prompts are read one by one, as what is known of each differs, and reading is no faster together. Writing is.
        """
        caches = [self._read_but_last(inputs) for inputs in batch]
        longest = max(len(inputs.ids) for inputs in batch)
        cache = side_by_side(caches)
        del caches
        output = self._generate(batch, max_new_tokens, stopping, past_key_values=cache, **sampling)
        return [self._until_end(row) for row in output.sequences[:, longest:].tolist()]

    def _read_but_last(self, inputs):
        """Keys and values of all tokens of a prompt but the last, which `generate` reads."""
        length = len(inputs.ids) - 1
        signature = inputs.signature[:length]
        # A copy, as other prompts of the batch may begin alike.
        cache, known = self.kept.beginning(signature, self._rotated_alike(length), take=False)
        ids = torch.tensor([inputs.ids[known:length]], device=self.model.device)
        pictures = int((ids == self.processor.image_token_id).sum())
        features = [torch.cat(inputs.features)[-pictures:]] if pictures else None
        positions = torch.arange(known, length, device=ids.device)[None]
        # Without the head, whose answer nobody needs.
        with at_best(ids.device, self.model.dtype, rows=ids.shape[1]):
            self.model.model(
                input_ids=ids,
                position_ids=positions,
                image_features=features,
                past_key_values=cache,
                use_cache=True,
            )
        self.kept.keep_text(signature, cache)
        return cache

    def _generate(self, batch, max_new_tokens, stopping, constraint=None, **options):
        longest = max(len(inputs.ids) for inputs in batch)
        pad, device = self.ends[-1], self.model.device
        ids = torch.tensor(
            [[pad] * (longest - len(inputs.ids)) + inputs.ids for inputs in batch], device=device
        )
        empty = torch.tensor([longest - len(inputs.ids) for inputs in batch], device=device)
        return self.model.generate(
            input_ids=ids,
            attention_mask=(torch.arange(longest, device=device) >= empty[:, None]).long(),
            image_features=[one for inputs in batch for one in inputs.features] or None,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.ends,
            pad_token_id=pad,
            logits_processor=LogitsProcessorList(
                [NoPictures(self.processor.image_token_id), *filter(None, [constraint])]
            ),
            stopping_criteria=StoppingCriteriaList(stopping),
            return_dict_in_generate=True,
            **options,
        )

    def _fixed_cache(self, tokens):
        """An empty cache that does not grow. The same one again, as compiled steps hold on to its place in memory."""
        size = -(-tokens // STEP) * STEP
        if size in self._fixed:
            self._fixed[size].reset()
        else:
            if self.model.device.type == "cuda":
                print(
                    f"Compiling for texts of up to {size:,} tokens: the first answer takes a minute longer."
                )
            self._fixed[size] = StaticCache(config=self.model.config, max_cache_len=size)
        return self._fixed[size]

    def _features(self, key, image, num_crops):
        """(tokens, D) of one picture."""
        features = self.kept.picture(key)
        if features is None:
            crops = self.processor.image_processor(image, num_crops=num_crops, pad_crops=False)
            pixel_values = crops["pixel_values"].to(self.model.device, self.model.dtype)
            features = self.model.get_image_features(pixel_values, crops["image_sizes"])[0]
            self.kept.keep_picture(key, features)
        return features

    def _rotated_alike(self, total):
        """For a prompt of `total` tokens, what `Kept.beginning` asks: see `LongRope`, which has two sets of factors."""
        limit = self.model.config.original_max_position_embeddings
        if self.model.config.rope_parameters["rope_type"] != "longrope":
            return lambda known, length: True
        # Beyond the limit `generate` computes all again that was not beyond it before.
        return lambda known, length: length > limit if total > limit else known <= limit

    def _until_end(self, ids):
        ends = [place for place, token in enumerate(ids) if token in self.ends]
        return ids[: ends[0] + 1] if ends else ids


def _key(image, num_crops):
    """A number, below zero, that no other picture or num_crops has: 62 bits of a SHA-256."""
    about = f"{image.mode} {image.size} {num_crops}".encode()
    digest = hashlib.sha256(image.tobytes())
    digest.update(about)
    return -1 - (int.from_bytes(digest.digest()[:8], "big") >> 2)
