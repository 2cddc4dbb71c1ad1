"""How many tokens a prompt has on a server, as far as that can be told here."""

import threading

from ..answers import TokenCount
from ..errors import LoadError
from ..estimates import LETTERS_PER_TOKEN, grid_of
from ..footprint import Footprint
from ..loading import look_at
from ..prompts import IMAGE_TAG

OURS = "phi3v-helpers"  # who owns the models that `phi3v serve` lists


class About(TokenCount):
    """A TokenCount that was not counted with the server's own files."""

    def __repr__(self):
        return f"about {super().__repr__()}"


class Counter:
    """name: of the model as the server lists it. ours: whether `phi3v serve` does."""

    def __init__(self, name, ours):
        try:
            self.config, self._pictures, self._tokenizer, _ = look_at(name)
        except LoadError:  # some copy: it is cut as Phi-3-vision is, or counts are wrong
            self.config, self._pictures, self._tokenizer, _ = look_at("phi-3-vision")
            ours = False
        self._exact = ours and self._tokenizer is not None
        self._crops = None if name == "tiny" else (16, 4) if ours or "3.5" not in name else (4, 4)
        self._lock = threading.Lock()  # the tokenizer's

    def count(self, prompt, images, num_crops):
        """A TokenCount."""
        per_image, chunks = self.of_images(images, num_crops), IMAGE_TAG.split(prompt)[::2]
        with self._lock:
            total = sum(map(self._of_text, chunks)) + sum(per_image)
        return (TokenCount if self._exact else About)(total, per_image)

    def of_images(self, images, num_crops):
        """Tokens of each, list of int. Raises ImageError."""
        if num_crops is None and self._crops is not None:
            num_crops = self._crops[len(images) > 1]
        for numbered in enumerate(images, start=1):
            grid_of(self._pictures, *numbered, num_crops)  # which has words for what cannot be cut
        return [self._pictures.num_image_tokens(*image.size, num_crops) for image in images]

    def memory(self, tokens):
        """Bytes of the weights, and of the keys and values of so many tokens, in 16 bits."""
        footprint = Footprint(self.config, "cuda", 2)
        return footprint.weights, footprint.kv_cache(int(tokens))

    def _of_text(self, text):
        if self._tokenizer is not None:
            return len(self._tokenizer(text).input_ids)
        return 1 + -(-len(text.encode()) // LETTERS_PER_TOKEN)
