"""The phi3_v model: a CLIP tower, a merge of its crops, a projector, and a Phi-3 decoder.

From a picture to tokens:

1. The crops, and in front of them the global view, go through CLIP up to its next-to-last layer. The class
   token is dropped: (crops, patches, C). The last layer and the layer norm behind it are in the checkpoint,
   but never run.
2. 2 x 2 neighbouring patches are joined into one token of 4C channels.
3. The crops are laid out in their grid, and a learned vector (`sub_GN`) ends every row. Another (`glb_GN`)
   follows, then the global view, laid out in the same way.
4. Two linear layers take all of it to the width of the decoder, where it replaces the embeddings of image
   tokens.

The decoder is Phi-3 mini with a rotary embedding that has two sets of factors, for short and for long texts.
Parameter names are those of the published checkpoint.

References: Microsoft's Phi-3-vision-128k-instruct and Phi-3.5-vision-instruct (arXiv 2404.14219); LongRoPE
(arXiv 2402.13753); the layout of crops is InternLM-XComposer2-4KHD's (arXiv 2404.06512).
"""

import math

import torch
from torch import nn
from transformers import CLIPVisionModel, Phi3ForCausalLM, Phi3Model
from transformers import initialization as init

from .configuration import Phi3VConfig
from .cpu import at_best, hold_on_to_memory
from .generation import Phi3VGeneration
from .image_tokens import image_places, place_features

# Crops that go through CLIP together, by device: more take memory, and save no time.
CROPS_AT_ONCE = {"cpu": 1}
CROPS_AT_ONCE_ELSEWHERE = 24  # a picture of 16 crops in one go


class LongRope(nn.Module):
    """Rotary embedding with short factors up to `original_max_position_embeddings` tokens, long ones beyond.

    Each row of a batch chooses by its own length, so that a batch gives what its rows give one by one.
    """

    def __init__(self, config):
        super().__init__()
        rope = config.rope_parameters
        self.base, self.dim = rope["rope_theta"], config.hidden_size // config.num_attention_heads
        self.original_max = config.original_max_position_embeddings
        ones = [1.0] * (self.dim // 2)
        self.factors = [rope.get("short_factor", ones), rope.get("long_factor", ones)]
        self.attention_scaling = 1.0
        growth = config.max_position_embeddings / self.original_max
        if rope["rope_type"] == "longrope" and growth > 1:
            self.attention_scaling = math.sqrt(1 + math.log(growth) / math.log(self.original_max))
        self.inv_freq = None  # made at first use: a buffer would not survive being built on the meta device

    def frequencies(self, device):
        """Inverse frequencies, float32 (2, dim / 2): short, long."""
        if self.inv_freq is None or self.inv_freq.device != device:
            exponents = torch.arange(0, self.dim, 2, dtype=torch.int64, device=device).float() / self.dim
            factors = torch.tensor(self.factors, dtype=torch.float32, device=device)
            self.inv_freq = 1.0 / (factors * self.base**exponents)
        return self.inv_freq

    @torch.no_grad()
    def forward(self, x, position_ids):
        """cos and sin, each (B, T, dim) in the dtype of `x`, for `position_ids` (B, T)."""
        is_long = (position_ids.amax(dim=-1) >= self.original_max).long()  # (B,)
        inv_freq = self.frequencies(x.device)[is_long]  # (B, dim / 2)
        angles = position_ids[:, :, None].float() * inv_freq[:, None, :]  # (B, T, dim / 2)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)


class VisionTower(nn.Module):
    """CLIP, run up to its next-to-last layer."""

    def __init__(self, config):
        super().__init__()
        clip = CLIPVisionModel(config.vision_config)
        self.vision_model = getattr(clip, "vision_model", clip)  # early releases of transformers 5 nest it

    def forward(self, pixel_values):
        """Patch features (crops, patches, C) of `pixel_values` (crops, 3, S, S)."""
        clip = self.vision_model
        hidden = clip.pre_layrnorm(clip.embeddings(pixel_values))
        for layer in clip.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:]


class ImageEmbedding(nn.Module):
    """Crops of pictures to token embeddings of the decoder."""

    def __init__(self, config):
        super().__init__()
        self.crop_size = config.vision_config.image_size
        width, channels = config.hidden_size, 4 * config.vision_config.hidden_size
        self.img_processor = VisionTower(config)
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, channels))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.img_projection = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, pixel_values, image_sizes):
        """Encode pictures.

        Args:
            pixel_values: (N, crops, 3, S, S); crops behind those that `image_sizes` tells of are left out.
            image_sizes: (N, 2) integers, padded height and width in pixels.

        Returns:
            A list of N tensors (tokens of the picture, hidden size).
        """
        grids = [
            (height // self.crop_size, width // self.crop_size) for height, width in image_sizes.tolist()
        ]
        counts = [1 + rows * columns for rows, columns in grids]
        if max(counts) > pixel_values.shape[1]:
            raise ValueError(
                f"image_sizes tells of {max(counts) - 1} crops, but pixel_values has room for "
                f"{pixel_values.shape[1] - 1}. Pass both as the image processor made them."
            )
        crops = torch.cat([picture[:count] for picture, count in zip(pixel_values, counts)])
        with at_best(crops.device, crops.dtype, rows=len(crops)):
            features = self.encode(crops)  # (all crops, t, t, 4C)
            sequences = [self.arrange(part, *grid) for part, grid in zip(features.split(counts), grids)]
            tokens = self.img_projection(torch.cat(sequences))
        return list(tokens.split([len(sequence) for sequence in sequences]))

    def encode(self, crops):
        """Crops (n, 3, S, S) to merged features (n, t, t, 4C), a few at a time."""
        if crops.device.type == "cpu":
            hold_on_to_memory()
        at_once = CROPS_AT_ONCE.get(crops.device.type, CROPS_AT_ONCE_ELSEWHERE)
        return torch.cat([self.merge_patches(self.img_processor(part)) for part in crops.split(at_once)])

    def merge_patches(self, features):
        """Join 2 x 2 neighbours: (crops, patches, C) -> (crops, t, t, 4C)."""
        n, patches, channels = features.shape
        t = math.isqrt(patches) // 2
        features = features.reshape(n, t, 2, t, 2, channels).permute(0, 1, 3, 2, 4, 5)  # (n, t, t, 2, 2, C)
        return features.reshape(n, t, t, 4 * channels)

    def arrange(self, crops, rows, columns):
        """Crops of one picture (1 + rows * columns, t, t, 4C), global view first, to (tokens, 4C)."""
        local, overall = self.lay_out(crops[1:], rows, columns), self.lay_out(crops[:1], 1, 1)
        return torch.cat([local, self.glb_GN[0], overall])

    def lay_out(self, crops, rows, columns):
        """(rows * columns, t, t, 4C) -> (rows * t * (columns * t + 1), 4C); `sub_GN` ends each row."""
        t, channels = crops.shape[1], crops.shape[-1]
        grid = crops.reshape(rows, columns, t, t, channels).transpose(1, 2)  # (rows, t, columns, t, 4C)
        grid = grid.reshape(rows * t, columns * t, channels)
        ends = self.sub_GN[0].expand(rows * t, 1, channels)
        return torch.cat([grid, ends], dim=1).flatten(0, 1)


class Phi3VModel(Phi3Model):
    """The decoder without its head, and the image embedding in front of it."""

    config_class = Phi3VConfig
    input_modalities = ("image", "text")
    _no_split_modules = ["Phi3DecoderLayer", "ImageEmbedding"]

    def __init__(self, config):
        super().__init__(config)
        self.rotary_emb = LongRope(config)
        self.vision_embed_tokens = ImageEmbedding(config)
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, ImageEmbedding):
            init.zeros_(module.glb_GN)
            init.zeros_(module.sub_GN)
        elif isinstance(
            module, VisionTower
        ):  # early releases of transformers 5 forget this buffer on loading
            embeddings = module.vision_model.embeddings
            init.copy_(embeddings.position_ids, torch.arange(embeddings.num_positions)[None])

    def forward(
        self,
        input_ids=None,
        pixel_values=None,
        image_sizes=None,
        attention_mask=None,
        position_ids=None,
        inputs_embeds=None,
        image_features=None,
        **kwargs,
    ):
        """Last hidden states; arguments as in `Phi3VForCausalLM.forward`."""
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids, pixel_values, image_sizes, image_features)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        return super().forward(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, **kwargs
        )

    def embed(self, input_ids, pixel_values=None, image_sizes=None, image_features=None):
        """Token embeddings (B, T, hidden size), image features in the place of image tokens."""
        embeddings = self.embed_tokens(
            input_ids.clamp(min=0)
        )  # a copy: the ids of the caller stay as they are
        image_token_id = self.config.image_token_id
        if pixel_values is None and image_features is None:
            # A single token is a step of generation. Looking at it would wait for the GPU, for nothing.
            if input_ids.shape[1] > 1 and image_places(input_ids, image_token_id).any():
                raise ValueError(
                    "input_ids has places for pictures, but pixel_values is missing. Pass pixel_values and "
                    "image_sizes as the processor returned them."
                )
            return embeddings
        if image_features is None:
            if image_sizes is None:
                raise ValueError(
                    "pixel_values came without image_sizes. Pass both as the processor returned them."
                )
            image_features = self.vision_embed_tokens(pixel_values, image_sizes)
        places, features = place_features(input_ids, image_features, image_token_id)
        return embeddings.masked_scatter(places[..., None], features.to(embeddings))


class Phi3VForCausalLM(Phi3VGeneration, Phi3ForCausalLM):
    """phi3_v with its head: logits, loss, `generate`."""

    config_class = Phi3VConfig
    input_modalities = ("image", "text")
    _no_split_modules = ["Phi3DecoderLayer", "ImageEmbedding"]

    def __init__(self, config):
        super(Phi3ForCausalLM, self).__init__(config)  # not Phi3ForCausalLM's, which builds a text-only model
        self.model = Phi3VModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, use_safetensors=None, **kwargs):
        """As in transformers, from safetensors only: pickled weights can run code."""
        if use_safetensors is False:
            raise ValueError("Pickled weights are not loaded. Convert them to safetensors first.")
        return super().from_pretrained(*args, use_safetensors=True, **kwargs)

    def get_image_features(self, pixel_values, image_sizes):
        """Token embeddings of pictures: a list of (tokens, hidden size), as `ImageEmbedding` gives them."""
        return self.model.vision_embed_tokens(pixel_values, image_sizes)

    def forward(
        self,
        input_ids=None,
        pixel_values=None,
        image_sizes=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        image_features=None,
        **kwargs,
    ):
        """Logits of the next token.

        Args:
            input_ids: (B, T) int64. A picture's place is as many image tokens as it has features, either all
                `<|image|>` (pictures are taken in their order) or all -n for the n-th picture of the row.
            pixel_values: (N, crops, 3, S, S) float, the pictures of all rows one after the other, or None.
            image_sizes: (N, 2) int64, height and width of the padded pictures in pixels.
            attention_mask: (B, T) of 0 and 1; padding may be on either side.
            position_ids: (B, T) int64; counted from `attention_mask` where left out.
            past_key_values, inputs_embeds, use_cache, **kwargs: as in every decoder of transformers.
            labels: (B, T) int64; -100 is not counted in the loss.
            logits_to_keep: compute only the last so many positions; 0 is all.
            image_features: list of (tokens, hidden size), one a picture, as `get_image_features` gives them: pictures
                encoded before, in the place of `pixel_values`.

        Returns:
            `CausalLMOutputWithPast` with `logits` (B, T, vocabulary).

        Raises:
            ValueError: image tokens and pictures do not match.
        """
        given = input_ids if inputs_embeds is None else inputs_embeds
        rows = given.shape[0] * given.shape[1]
        with at_best(self.device, self.dtype, rows, lambda: self._keys_of_a_layer(rows, past_key_values)):
            return super().forward(
                input_ids=input_ids,
                pixel_values=pixel_values,
                image_sizes=image_sizes,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                labels=labels,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                image_features=image_features,
                **kwargs,
            )

    def _keys_of_a_layer(self, rows, cache):
        """Numbers in the keys of one layer, once `rows` more tokens are read."""
        config = self.config
        known = cache.get_seq_length() if cache is not None else 0
        return (
            (known + rows) * config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
        )
