"""Makes the tiny model's tokenizer: a word for each word of our sentences, a letter for everything else.

Names, titles and numbers are spelled, so that the model must read them; any other text falls back on bytes.

    python -m training.tokenizer phi3v_helpers/tiny
"""

from __future__ import annotations

import random
import string
import sys
from collections import Counter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training import pictures, questions, words

# The same strings as Phi-3-vision's tokenizer, and the same stripping of what follows them.
SPECIAL = (
    "<unk>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<|user|>",
    "<|image|>",
)
STRIPS_RIGHT = {"</s>", "<|assistant|>"}


def splitter():
    """Digits one by one, then words with the space before them, in the byte alphabet."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def frame_words(samples: int = 6000) -> list[str]:
    """The words of our questions and answers that are not read from a picture."""
    rng, counts, look = random.Random(0), Counter(), pictures.Look(render=False)
    split = splitter()
    read = {
        w
        for group in (words.TITLE_WORDS, words.FIRST_NAMES, words.LAST_NAMES, words.COMPANIES)
        for w in group
    }
    read |= {w.upper() for w in read} | {"THE", "OF", "AND"}
    texts = [q for group in questions.ASK.values() for q in group] + [
        *questions.DESCRIBE,
        *questions.OFF_TOPIC,
    ]
    for _ in range(samples):
        one = pictures.DRAW[rng.choice(("scene", "chart", "book", "other"))](rng, look)
        two = pictures.DRAW[rng.choice(("scene", "chart", "book", "other"))](rng, look)
        if one.kind != "other" and rng.random() < 0.3:
            two = pictures.change(rng, one, look)
        texts += [t for pair in questions.dialogue(rng, one, 4) for t in pair]
        texts += [t for pair in questions.dialogue_of_two(rng, one, two, 3) for t in pair]
    for text in texts:
        counts.update(piece for piece, _ in split.pre_tokenize_str(text))
    return sorted(
        w
        for w, n in counts.items()
        if len(w) > 1 and w.lstrip("Ġ") not in read and not any(c in string.digits for c in w)
    )


def build() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet, *frame_words()])}
    # ``ignore_merges``: a piece that is a word of the vocabulary is one token; all others fall into letters.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True, rstrip=t in STRIPS_RIGHT) for t in SPECIAL]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
        unk_token="<unk>", padding_side="left", model_max_length=8192, clean_up_tokenization_spaces=False,
    )  # fmt: skip


if __name__ == "__main__":
    build().save_pretrained(sys.argv[1])
