"""What `generate` must know of phi3_v: where answers end, when pictures go along, when the cache is void."""

import torch
from transformers import GenerationMixin

from .configuration import STALE_EOS_TOKEN_ID
from .image_tokens import image_places, pictures_of_rows


class Phi3VGeneration(GenerationMixin):
    """Mixed into `Phi3VForCausalLM`, in front of transformers' own class."""

    def generate(self, *args, **kwargs):
        """`GenerationMixin.generate`, which stops at `<|end|>` and at `<|endoftext|>`.

        The published generation settings name `</s>`, which the model never writes, and the tokenizer names
        only one of the two. Any of these as `eos_token_id` is taken to mean both; another one is kept.
        """
        if "eos_token_id" in kwargs:
            kwargs["eos_token_id"] = self._both_ends(kwargs["eos_token_id"])
        for settings in (self.generation_config, kwargs.get("generation_config")):
            if settings is not None:
                settings.eos_token_id = self._both_ends(settings.eos_token_id)
        return super().generate(*args, **kwargs)

    def _both_ends(self, eos_token_id):
        ends = self.config.eos_token_id
        if isinstance(ends, list) and eos_token_id in (STALE_EOS_TOKEN_ID, *ends):
            return list(ends)
        return eos_token_id

    def prepare_inputs_for_generation(
        self,
        input_ids,
        past_key_values=None,
        attention_mask=None,
        pixel_values=None,
        image_sizes=None,
        image_features=None,
        **kwargs,
    ):
        """Inputs of one step. Pictures go along only where their tokens do: with the prompt."""
        if past_key_values is not None and self._crosses_longrope(input_ids, past_key_values, attention_mask):
            # Cached keys carry the short rotation, and need the long one now: compute all of them again.
            past_key_values = None
            kwargs = self._for_all_tokens(input_ids, **kwargs)
        # Not Phi3ForCausalLM's own, which would judge rows by their padded length.
        inputs = GenerationMixin.prepare_inputs_for_generation(
            self, input_ids, past_key_values=past_key_values, attention_mask=attention_mask, **kwargs
        )
        ids = inputs.get("input_ids")
        if ids is None or ids.shape[1] == 1 or not image_places(ids, self.config.image_token_id).any():
            return inputs
        if image_features is not None:
            inputs.update(image_features=self._newest_features(image_features, input_ids, ids))
        elif pixel_values is not None:
            inputs.update(pixel_values=pixel_values, image_sizes=image_sizes)
        return inputs

    def _newest_features(self, image_features, input_ids, ids):
        """The features for `ids`, the last columns of `input_ids`: keys and values of the others are cached."""
        if ids.shape == input_ids.shape:
            return image_features
        token = self.config.image_token_id
        whole = image_places(input_ids, token).sum(-1).tolist()
        newest = image_places(ids, token).sum(-1).tolist()
        rows = torch.cat(list(image_features)).split(whole)
        return [row[len(row) - count :] for row, count in zip(rows, newest) if count]

    def _for_all_tokens(self, input_ids, position_ids=None, **kwargs):
        """The arguments of a step, changed from those of its newest token to those of all tokens."""
        if "next_sequence_length" in kwargs:
            kwargs["next_sequence_length"] = None
        if kwargs.get("cache_position") is not None:  # early releases of transformers 5
            kwargs["cache_position"] = torch.arange(input_ids.shape[1], device=input_ids.device)
        return kwargs  # without position_ids, which some releases keep for the newest token only

    def _crosses_longrope(self, input_ids, past_key_values, attention_mask):
        """Whether a row has just outgrown the short factors that its cached keys were made with."""
        limit, total = self.config.original_max_position_embeddings, input_ids.shape[1]
        cached = past_key_values.get_seq_length()
        if total <= limit or cached == 0 or self.config.rope_parameters["rope_type"] != "longrope":
            return False
        if attention_mask is None:
            return cached <= limit
        lengths, cached_lengths = attention_mask.sum(-1), attention_mask[:, :cached].sum(-1)
        return bool(((cached_lengths <= limit) & (lengths > limit)).any())

    def _expand_inputs_for_generation(
        self, expand_size=1, is_encoder_decoder=False, input_ids=None, **kwargs
    ):
        """Repeat every row `expand_size` times, for beams or samples, and with each row its pictures."""
        names = ("pixel_values", "image_sizes", "image_features")
        pictures = {key: kwargs.pop(key) for key in names if kwargs.get(key) is not None}
        if expand_size > 1 and pictures:
            rows = pictures_of_rows(input_ids, self._tokens_of(pictures), self.config.image_token_id)
            order = [picture for row in rows for _ in range(expand_size) for picture in row]
            pictures = {
                key: [value[picture] for picture in order] if isinstance(value, list) else value[order]
                for key, value in pictures.items()
            }
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, {**kwargs, **pictures}

    def _tokens_of(self, pictures):
        """How many tokens each of the pictures has that came as arguments of `generate`."""
        if "image_features" in pictures:
            return [len(features) for features in pictures["image_features"]]
        return [self.config.num_image_tokens(*size) for size in pictures["image_sizes"].tolist()]
