"""Run in a process of its own: asks one question one way, and prints what the process needed at most.

python -m benchmarks.memory ours mid 2
"""

from __future__ import annotations

import gc
import json
import sys

import torch

from benchmarks import baseline, models
from phi3v_helpers.prompts import build_prompt
from phi3v_helpers.vision import Phi3Vision


def main(way: str, size: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    model, processor = models.build(size), models.processor()
    image, question = models.picture(1024, 768), "What is shown in this image?"
    published, vision = baseline.Published(model), Phi3Vision(model, processor, "random weights", 16)
    gc.collect()
    before = models.memory_of_process(reset=True)
    if way == "theirs":
        published.ask(processor, image, build_prompt(question, 1), 2)
    else:
        vision.ask(image, question, max_new_tokens=2)
    print(json.dumps({"before": before, "peak": models.memory_of_process()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
