"""Configuration of phi3_v: a CLIP vision tower in front of a Phi-3 decoder.

Reads the config.json of Phi-3-vision and Phi-3.5-vision as published, and writes the same layout back.
What is special about that layout:

- `rope_scaling.type` is "su", the old name of what transformers calls "longrope".
- `_attn_implementation` and `auto_map` are stale leftovers: the first demands flash-attn everywhere, the
  second points at remote code. Both are dropped.
- The vision tower has no sizes in it: it is always CLIP ViT-L/14-336. Here `vision_config` may change them.
- `eos_token_id` is 2, yet every answer ends with `<|end|>` or `<|endoftext|>`.
"""

from transformers import CLIPVisionConfig, Phi3Config

CLIP_VIT_L_14_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
VISION_FIELDS = (*CLIP_VIT_L_14_336, "hidden_act", "layer_norm_eps", "attention_dropout", "num_channels")
EMBD_LAYER = {
    "embedding_cls": "image",
    "hd_transform_order": "sub_glb",
    "projection_cls": "mlp",
    "use_hd_transform": True,
    "with_learnable_separator": True,
}
IMG_PROCESSOR = {"name": "clip_vision_model", "model_name": "openai/clip-vit-large-patch14-336"}
IMAGE_TOKEN_ID = 32044  # <|image|>
END_TOKEN_IDS = [32007, 32000]  # <|end|>, <|endoftext|>
STALE_EOS_TOKEN_ID = 2  # </s>, which the model never writes


class Phi3VConfig(Phi3Config):
    """Everything that `Phi3VForCausalLM` needs to know about its own shape.

    Args:
        vision_config: sizes of the CLIP tower, a dict or a `CLIPVisionConfig`; what is left out is as in
            ViT-L/14-336.
        image_token_id: id of the token that stands for one image feature; 32044 if the vocabulary has it.
        rope_scaling: None, or `{"type": "su", "short_factor": [...], "long_factor": [...]}` with one factor
            for each pair of rotary dimensions. "longrope" means the same as "su".
        rope_theta: base of the rotary embedding.
        eos_token_id: where an answer ends, one id or a list. The stale 2 of the published files becomes
            `<|end|>` and `<|endoftext|>`.
        embd_layer, img_processor: blocks of the published file that only name the one arrangement there is.
        vocab_size, **kwargs: the fields of `transformers.Phi3Config`.

    Raises:
        ValueError: an arrangement that the published models do not have, or sizes that do not fit.
    """

    model_type = "phi3_v"
    sub_configs = {"vision_config": CLIPVisionConfig}

    def __init__(
        self,
        vision_config=None,
        image_token_id=None,
        rope_scaling=None,
        rope_theta=10000.0,
        eos_token_id=STALE_EOS_TOKEN_ID,
        embd_layer=None,
        img_processor=None,
        vocab_size=32064,
        **kwargs,
    ):
        for stale in ("_attn_implementation", "auto_map"):
            kwargs.pop(stale, None)
        if not isinstance(vision_config, CLIPVisionConfig):
            vision_config = CLIPVisionConfig(**{**CLIP_VIT_L_14_336, **(vision_config or {})})
        _check_vision(vision_config)
        _check_embd_layer(embd_layer)
        if image_token_id is None and vocab_size > IMAGE_TOKEN_ID:
            image_token_id = IMAGE_TOKEN_ID
        if eos_token_id == STALE_EOS_TOKEN_ID and vocab_size > max(END_TOKEN_IDS):
            eos_token_id = list(END_TOKEN_IDS)

        self.vision_config = vision_config
        self.image_token_id = image_token_id
        self.embd_layer = dict(embd_layer or EMBD_LAYER)
        self.img_processor = {
            **(img_processor or IMG_PROCESSOR),
            "image_dim_out": vision_config.hidden_size,
            "num_img_tokens": self.tokens_per_crop_side**2,
        }
        lengths = [kwargs.get(f"{name}max_position_embeddings", 4096) for name in ("", "original_")]
        rope_scaling = kwargs.pop("rope_parameters", None) or rope_scaling
        rope_parameters = _rope_parameters(rope_scaling, rope_theta, growth=lengths[0] / lengths[1])
        super().__init__(
            vocab_size=vocab_size, eos_token_id=eos_token_id, rope_parameters=rope_parameters, **kwargs
        )
        _check_padding(self.pad_token_id, vocab_size)

    @property
    def tokens_per_crop_side(self):
        """Image tokens along a side of a crop: half its patches, as 2 x 2 are joined. 12 as published."""
        return self.vision_config.image_size // self.vision_config.patch_size // 2

    def num_image_tokens(self, height, width):
        """Tokens of a picture whose padded size is `height` x `width` pixels: a row of `image_sizes`."""
        size, side = self.vision_config.image_size, self.tokens_per_crop_side
        rows, columns = height // size, width // size
        return (rows * columns + 1) * side**2 + 1 + (rows + 1) * side

    def to_dict(self):
        """The config as a dict in the published layout, so that other software reads what we save."""
        output = super().to_dict()
        rope = output.pop("rope_parameters", None) or {}
        output["rope_theta"] = rope.get("rope_theta", 10000.0)
        output["rope_scaling"] = None
        if rope.get("rope_type") == "longrope":
            factors = {key: rope[key] for key in ("long_factor", "short_factor")}
            output["rope_scaling"] = {"type": "su", **factors}
        if isinstance(output.get("vision_config"), dict):
            output["vision_config"] = {key: output["vision_config"][key] for key in VISION_FIELDS}
        return output


def _rope_parameters(rope_scaling, rope_theta, growth):
    """Translate `rope_scaling` of the published files into what transformers 5 calls `rope_parameters`."""
    rope = dict(rope_scaling or {})
    rope_theta = rope.pop("rope_theta", rope_theta)
    kinds = {rope.pop(key) for key in ("type", "rope_type") if key in rope} or {"default"}
    if kinds == {"default"}:
        return {"rope_type": "default", "rope_theta": rope_theta}
    if not kinds <= {"su", "longrope"} or not {"short_factor", "long_factor"} <= set(rope):
        raise ValueError(
            f"rope_scaling of the type {', '.join(sorted(kinds))} is not one that phi3_v has. Use "
            "{'type': 'su', 'short_factor': [...], 'long_factor': [...]}, or None."
        )
    factors = {key: list(rope[key]) for key in ("short_factor", "long_factor")}
    return {"rope_type": "longrope", "rope_theta": rope_theta, "factor": growth, **factors}


def _check_embd_layer(embd_layer):
    for key, value in (embd_layer or {}).items():
        if key in EMBD_LAYER and value != EMBD_LAYER[key]:
            raise ValueError(
                f"embd_layer[{key!r}] is {value!r}, and only {EMBD_LAYER[key]!r}, as published, is known. "
                "Check that this is the config.json of a phi3_v model."
            )


def _check_vision(vision):
    patches, rest = divmod(vision.image_size, vision.patch_size)
    if rest or patches % 2:
        raise ValueError(
            f"A crop of {vision.image_size} pixels in patches of {vision.patch_size} does not make an even "
            "number of whole patches a side, which the 2 x 2 merge needs. Choose another patch_size."
        )
    if vision.num_hidden_layers < 2:
        raise ValueError("vision_config.num_hidden_layers must be 2 or more: the last layer is never run.")


def _check_padding(pad_token_id, vocab_size):
    if pad_token_id is not None and not 0 <= pad_token_id < vocab_size:
        raise ValueError(
            f"pad_token_id is {pad_token_id}, but the vocabulary has only {vocab_size} tokens. "
            "Pass the pad_token_id of the tokenizer."
        )
