"""An example of `p3v.tune`: teaches the tiny model to count corners, and measures what it forgets.

    python -m training.new_skill runs/corners --data         # draws the examples: pictures and data.jsonl
    python -m training.new_skill runs/corners                # and trains an adapter; stop and start it as you like
    python -m training.new_skill runs/corners --n 100 --json benchmarks/results/lora.json
                                                             # and asks about so many unseen pictures of each skill

A fifth of the examples are new, the others are questions that the model was trained on. The lesson on fine-tuning shows
the file of the last command, where it is there.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path

import torch

import phi3v_helpers as p3v
from benchmarks import report
from training import data, evaluate, pictures
from training.canvas import COLOURS, KINDS

ASK = (
    "How many corners does the shape have?",
    "Count the corners of the shape.",
    "How many corners do you see?",
)
CORNERS = {
    "circle": "no",
    "square": "four",
    "triangle": "three",
    "star": "ten",
    "diamond": "four",
    "cross": "twelve",
}


def corners(rng: random.Random):
    """([picture], question, answer) about one shape."""
    shape = (rng.randrange(9), rng.choice(list(COLOURS)), rng.choice(KINDS))
    picture = pictures.draw_scene(rng, pictures.random_look(rng), [shape])
    return [picture], rng.choice(ASK), f"The {shape[2]} has {CORNERS[shape[2]]} corners."


def known(rng: random.Random):
    """([pictures], question, answer) as in the model's own training."""
    if rng.random() < 0.25:
        shown, turns = data.draw_pair(rng, render=True)
    else:
        shown, turns = data.draw_single(rng, render=True)
    return shown, *turns[0]


def write(folder: Path, new: int, old: int, seed: int = 0) -> Path:
    """Draw the examples into a folder; returns the file that names them."""
    rng, lines = random.Random(f"corners {seed}"), []
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for i in range(new + old):
        shown, question, answer = corners(rng) if i < new else known(rng)
        names = [f"pictures/{i}_{k}.png" for k in range(len(shown))]
        for name, picture in zip(names, shown):
            pictures.weather(rng, picture.image).convert("RGB").save(folder / name)
        group = "corners" if i < new else "two pictures" if len(shown) > 1 else shown[0].kind
        lines.append({"images": names, "question": question, "answer": answer, "group": group})
    rng.shuffle(lines)
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def exact(model, n: int, skills=("corners", *evaluate.SKILLS), seed: int = 1) -> dict[str, float]:
    """{skill: share of exact answers} of a Phi3Vision, on n unseen pictures each."""
    shares = {}
    for skill in skills:
        rng = random.Random(f"{evaluate.SEED_OFFSET + seed} {skill}")
        drawn = [corners(rng) if skill == "corners" else evaluate.example(rng, skill) for _ in range(n)]
        asked = [([pictures.weather(rng, p.image) for p in shown], q) for shown, q, _ in drawn]
        answers = model.ask_many(asked, max_new_tokens=250, progress=False)
        shares[skill] = sum(str(got) == right for got, (*_, right) in zip(answers, drawn)) / n
    return shares


def compare(adapter: Path, n: int, skills=("corners", *evaluate.SKILLS)) -> list[dict]:
    """A row for each skill: exact answers without and with the adapter, on the same n unseen pictures."""
    before, after = (
        exact(p3v.load("tiny", adapter=where, verbose=False), n, skills) for where in (None, adapter)
    )
    return [{"skill": skill, "before": before[skill], "after": after[skill]} for skill in skills]


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = ["| exact answers | before | after |", "|---|---|---|"]
    return "\n".join(lines + ["| {skill} | {before:.0%} | {after:.0%} |".format(**row) for row in rows])


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--new", type=int, default=400)
    parser.add_argument("--old", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--data", action="store_true", help="only draw")
    parser.add_argument("--n", type=int, default=0, help="ask about so many unseen pictures of each skill")
    parser.add_argument("--json", type=Path, help="write their shares of exact answers to this file")
    args = parser.parse_args(words)
    path = args.folder / "data.jsonl"
    if not path.exists():
        write(args.folder, args.new, args.old)
    if args.data:
        return
    out = args.folder / "adapter"
    tuned = p3v.tune(path, out, "tiny", epochs=args.epochs, learning_rate=args.learning_rate)
    print(tuned)
    if args.n:
        rows = compare(out, args.n)
        print(table(rows))
        if args.json:
            groups = Counter(json.loads(line)["group"] for line in path.read_text("utf-8").splitlines())
            run = {"examples": groups, "epochs": args.epochs, "seconds": tuned.seconds}
            facts = report.about(torch.get_num_threads())
            report.write(args.json, rows, facts, suite="lora", n=args.n, losses=tuned.losses, **run)


if __name__ == "__main__":
    main()
