"""`phi3v tune DATA.jsonl --out FOLDER`."""

import sys
from contextlib import redirect_stdout

from .options import add_command, add_model_options, given

OPTIONS = (
    ("--epochs", int, "how often each example is seen (default: 3)"),
    ("--batch", int, "examples a step (default: 8)"),
    ("--at-once", int, "how many of them are computed together (default: all)"),
    ("--rank", int, "of the adapter (default: 16)"),
    ("--alpha", float, "of the adapter (default: 32)"),
    ("--learning-rate", float, "the highest (default: 0.001)"),
    ("--validation", float, "share of the examples to measure with (default: 0.1)"),
    ("--seed", int, "of the split, the order and the adapter (default: 0)"),
    ("--num-crops", int, "the most tiles a picture is cut into"),
    ("--max-tokens", int, "the most tokens of an example (default: 4096)"),
)


def add_tune(commands):
    parser = add_command(
        commands,
        "tune",
        _tune,
        "teach a model something new from examples",
        'Train a LoRA adapter from a file with an example a line: {"images": ["a.png"], "question": "...", "answer": '
        '"..."}. Started again, a run that was broken off goes on where it was. Prints how many answers to examples '
        "that were kept back are exactly right, before and after.",
    )
    parser.add_argument("data", metavar="DATA.jsonl", help="the examples; images are relative to it")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the adapter goes")
    add_model_options(parser)
    for name, kind, help in OPTIONS:
        parser.add_argument(name, type=kind, metavar="N", help=help)
    parser.add_argument("--quantize", choices=("8bit", "4bit"), help="smaller weights, on a CUDA GPU only")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")


def _tune(options):
    from ..tuning import tune

    names = [name.removeprefix("--").replace("-", "_") for name, *_ in OPTIONS]
    with redirect_stdout(sys.stderr):  # what `load` says
        tuned = tune(
            options.data,
            options.out,
            options.model,
            device=options.device,
            dtype=options.dtype,
            quantize=options.quantize,
            gradient_checkpointing=options.gradient_checkpointing,
            **given(options, names),
        )
    print(tuned)
