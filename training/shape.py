"""The sizes of the tiny model, in one place."""

from __future__ import annotations

VISION = {
    "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768,
    "image_size": 336, "patch_size": 24, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0, "projection_dim": 192,
}  # fmt: skip
DECODER = {
    "hidden_size": 256, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 640, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
    "max_position_embeddings": 8192, "original_max_position_embeddings": 4096, "rope_theta": 10000.0,
    # Trained well below 4096 tokens: the short factors are plain rope, the long ones stretch it twofold.
    "rope_scaling": {"type": "su", "short_factor": [1.0] * 32, "long_factor": [2.0] * 32},
    "sliding_window": 8192, "attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
}  # fmt: skip


def vision_config(used_layers_only: bool = False):
    """phi3_v takes the features before the last layer: that layer exists in the file, and is never run or trained."""
    from transformers import CLIPVisionConfig  # drawing needs the sizes, and not transformers

    sizes = dict(VISION)
    if used_layers_only:
        sizes["num_hidden_layers"] -= 1
    return CLIPVisionConfig(**sizes)


def model_config(tokenizer):
    """The whole configuration, with the ids that the tokenizer gives."""
    from phi3v_helpers.model import Phi3VConfig

    def id_of(token):
        return tokenizer.convert_tokens_to_ids(token)

    return Phi3VConfig(
        vision_config=dict(VISION), vocab_size=len(tokenizer), image_token_id=id_of("<|image|>"),
        bos_token_id=id_of("<s>"),
        eos_token_id=[id_of("<|end|>"), id_of("<|endoftext|>")], pad_token_id=id_of("<|endoftext|>"), **DECODER,
    )  # fmt: skip
