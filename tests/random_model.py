"""A complete phi3_v folder with random weights: made in a second, for tests that do not care what is said."""

import functools
import tempfile
from itertools import product
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from phi3v_helpers.model import Phi3VConfig, Phi3VForCausalLM, Phi3VImageProcessor, Phi3VProcessor

SPECIAL = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>"]
SPECIAL += ["<|system|>", "<|end|>", "<|user|>", "<|image|>"]
CONTEXT = 4096


def make_tokenizer():
    """Letters and bytes, so that anything can be asked, and words, so that answers come in pieces."""
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    words = ["▁" + "".join(syllables) for syllables in product(("ba", "do", "ki", "lu", "me"), repeat=4)]
    pieces = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)] + characters + words
    backend = Tokenizer(
        models.BPE({piece: id for id, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    # As the published tokenizer does it: spaces are ▁, and one stands in front of everything.
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
    )


def make_folder(folder, seed=0, strength=1, **changes):
    """Write config, weights, tokenizer and processor into `folder`.

    strength: of the decoder's weights; at about 5 the answers depend on everything that was read.
    changes: of the config.
    """
    tokenizer = make_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    settings = {
        "vision_config": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "patch_size": 42,
        },
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "original_max_position_embeddings": CONTEXT,
        "bos_token_id": ids["<s>"],
        "eos_token_id": [ids["<|end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
        "image_token_id": ids["<|image|>"],
    }
    config = Phi3VConfig(**settings | changes)
    torch.manual_seed(seed)
    model = Phi3VForCausalLM(config)
    with torch.no_grad():
        for weights in (*model.model.layers.parameters(), *model.model.vision_embed_tokens.parameters()):
            weights.mul_(strength if weights.ndim == 2 else 1)
    image_processor = Phi3VImageProcessor(num_crops=1, num_img_tokens=config.tokens_per_crop_side**2)
    model.save_pretrained(folder)
    Phi3VProcessor(image_processor, tokenizer).save_pretrained(folder)
    return folder


@functools.cache
def random_folder():
    """Such a folder, made once for each process and removed at its end."""
    temporary = tempfile.TemporaryDirectory()
    make_folder(temporary.name)
    _folders.append(temporary)
    return Path(temporary.name)


_folders = []
