"""What 8 and 4 bits cost and gain on a CPU, against the same model in bfloat16 and in float32.

    python -m benchmarks.quantized [--json benchmarks/results/quantized.json] [--n 20] [--threads 2]

Memory, agreement and seconds are of the mid-size model with random weights, whose answers hang on every rounding;
exact answers are of the tiny model, on unseen pictures of `training.evaluate`.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch

import phi3v_helpers as p3v
from benchmarks import models, report
from benchmarks.timing import in_turn
from phi3v_helpers.prompts import build_prompt
from phi3v_helpers.quantize import KINDS, quantize_on_cpu
from phi3v_helpers.vision import Phi3Vision
from training import evaluate, new_skill

QUESTION = "What is shown in this image?"
WAYS = {"float32": (torch.float32, None), "bfloat16": (torch.bfloat16, None)} | {
    kind: (torch.bfloat16, kind) for kind in KINDS
}
NEW = 32  # tokens that are written for the time of one


def mid(size: str) -> dict[str, Phi3Vision]:
    """The same random weights in every way."""
    full, processor, made = models.build(size), models.processor(), {}
    for way, (dtype, kind) in WAYS.items():
        model = copy.deepcopy(full).to(dtype)
        if kind:
            quantize_on_cpu(model, kind, dtype)
            model.quantize = kind
        made[way] = Phi3Vision(model, processor, way, 4)
    return made


@torch.inference_mode()
def logits(vision: Phi3Vision, seeds) -> torch.Tensor:
    """Of every token of some texts, (tokens, vocabulary), in float32."""
    rows = []
    for seed in seeds:
        ids = torch.randint(300, 32000, (1, 64), generator=torch.Generator().manual_seed(seed))
        rows.append(vision.model(input_ids=ids).logits[0].float())
    return torch.cat(rows)


def seconds(visions: dict[str, Phi3Vision], repeats: int) -> dict[str, tuple[float, float]]:
    """{way: (to read a picture's prompt, to write a token behind it)}."""
    prompt, image = build_prompt(QUESTION, 1), models.picture(1024, 768)

    def write(vision, tokens):
        vision.engine.kept.clear()
        known = vision.engine.read(prompt, [image], 4)
        vision.engine.write(known, tokens, min_new_tokens=tokens, do_sample=False)

    ways = {(way, n): lambda v=v, n=n: write(v, n) for way, v in visions.items() for n in (1, 1 + NEW)}
    taken = in_turn(ways, repeats)
    return {way: (taken[way, 1], (taken[way, 1 + NEW] - taken[way, 1]) / NEW) for way in visions}


def exact(way: str, n: int) -> dict[str, float]:
    """{skill: share of exact whole answers} of the tiny model."""
    dtype, kind = WAYS[way]
    tiny = p3v.load("tiny", dtype=dtype, quantize=kind, verbose=False)
    return new_skill.exact(tiny, n, evaluate.SKILLS)


def run(size: str = "mid", n: int = 20, repeats: int = 3) -> list[dict]:
    """A row for each way."""
    visions = mid(size)
    right = logits(visions["float32"], range(4))
    taken, rows = seconds(visions, repeats), []
    for way, vision in visions.items():
        given = logits(vision, range(4))
        shares = exact(way, n) if n else {}
        read, token = taken[way]
        rows.append(
            {
                "way": way,
                "weights": vision.memory(0)[0],
                "agreement": float((given.argmax(-1) == right.argmax(-1)).float().mean()),
                "error": float((given - right).norm() / right.norm()),
                "seconds_to_read": read,
                "seconds_a_token": token,
                "ratio_to_read": taken["bfloat16"][0] / read,
                "ratio_a_token": taken["bfloat16"][1] / token,
                "exact": shares,
                "exact_mean": sum(shares.values()) / len(shares) if shares else None,
            }
        )
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| weights in | memory | likeliest token agrees | error of logits | exact answers of the tiny model | "
        "reading, times as fast | writing, times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = "-" if row["exact_mean"] is None else f"{row['exact_mean']:.1%}"
        lines.append(
            f"| {row['way']} | {row['weights'] / 1e6:,.0f} MB | {row['agreement']:.1%} | {row['error']:.2%} | "
            f"{shares} | {row['ratio_to_read']:.2f} | {row['ratio_a_token']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("small", "mid", "full"), default="mid")
    parser.add_argument("--n", type=int, default=20, help="unseen pictures of each skill; 0 asks none")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each way, in turn; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    facts = report.about(args.threads)
    print(report.caption(facts))
    rows = run(args.size, args.n, args.repeats)
    print(table(rows))
    if args.json:
        report.write(args.json, rows, facts, suite="quantized", n=args.n)


if __name__ == "__main__":
    main()
