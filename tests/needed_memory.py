"""Run in a process of its own: asks one question, and prints what was estimated and what the process really needed.

python tests/needed_memory.py float32 16 1 5      dtype, num_crops, pictures, words of the question
"""

import gc
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import models
from phi3v_helpers.estimates import estimate
from phi3v_helpers.vision import Phi3Vision


def main(dtype, num_crops, pictures, words):
    dtype, processor = getattr(torch, dtype), models.processor(int(num_crops))
    images = [models.picture(1024, 768, seed) for seed in range(int(pictures))]
    question = "a " * int(words)
    # What Python and PyTorch need themselves, on their first use, is not the model's.
    Phi3Vision(models.build("small", dtype=dtype), processor, "small", 1).ask(
        images[:1] or None, "a", max_new_tokens=2
    )
    gc.collect()
    before = models.memory_of_process(reset=True)
    vision = Phi3Vision(models.build("mid", dtype=dtype), processor, "mid", int(num_crops))
    vision.engine.kept.budget = 10**12
    told = estimate(vision, images or None, question, max_new_tokens=4)
    answer = vision.ask(images or None, question, max_new_tokens=4)
    assert (told.prompt_tokens, sum(told.image_tokens) > 0) == (answer.prompt_tokens, bool(images))
    print(json.dumps({"estimated": told.peak, "measured": models.memory_of_process() - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
