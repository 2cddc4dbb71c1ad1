"""How often is a whole answer exactly right?  Draws fresh pictures and asks the tiny model about them.

    python -m training.evaluate --seed 1 --n 100 [--json] [--folder phi3v_helpers/tiny] [--wrong wrong.png]

Every picture goes the way of a user's picture: through the processor and ``generate``.  With ``--json`` the last line
is one object, skill -> share of exact whole answers.  Training draws from seeds of another range (see ``SEED_OFFSET``).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoProcessor

import phi3v_helpers.model  # noqa: F401  (registers phi3_v)
from phi3v_helpers.prompts import build_prompt
from training import data, pictures, questions

SEED_OFFSET = 10_000_000  # training seeds stay below
SKILLS = ("chart", "book", "scene", "compare", "text", "other", "details")
TINY = Path(__file__).parents[1] / "phi3v_helpers" / "tiny"


def example(rng: random.Random, skill: str):
    """(pictures, question, the one right answer).  The seed's own question is asked one time in three."""
    if skill == "compare":
        shown, _ = data.draw_pair(rng, render=True)
        return shown, _question(rng, "compare"), questions.tell_both(*shown)
    if skill == "details":
        picture = pictures.DRAW[rng.choice(("scene", "chart", "book"))](rng, pictures.random_look(rng))
        question, answer = questions.dialogue(rng, picture, 1, full=0.03)[0]
        return [picture], question, answer
    kind = "page" if skill == "text" else skill
    picture = pictures.DRAW[kind](rng, pictures.random_look(rng))
    asked = rng.choice(questions.DESCRIBE) if skill == "other" else _question(rng, kind)
    return [picture], asked, questions.tell(picture)


def _question(rng, kind: str) -> str:
    phrasings = questions.ASK[kind]
    return phrasings[0] if rng.random() < 1 / 3 else rng.choice(phrasings)


@torch.inference_mode()
def answers(model, processor, examples, batch: int = 16) -> list[str]:
    """Greedy answers to [(images, question)], in order."""
    result = []
    for start in tqdm(range(0, len(examples), batch), leave=False):
        part = examples[start : start + batch]
        texts = [build_prompt(question, len(images)) for images, question in part]
        inputs = processor(texts, [images for images, _ in part], return_tensors="pt").to(model.device)
        ids = model.generate(**inputs, max_new_tokens=250, do_sample=False)
        result += processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return result


def evaluate(folder: Path, seed: int, n: int, skills=SKILLS):
    """{skill: [(pictures, question, right answer, given answer)]}."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    table = {}
    for skill in skills:
        rng = random.Random(f"{SEED_OFFSET + seed} {skill}")
        drawn = [example(rng, skill) for _ in range(n)]
        shown = [([pictures.weather(rng, p.image) for p in ps], question) for ps, question, _ in drawn]
        given = answers(model, processor, shown)
        table[skill] = [
            (images, q, right, got) for (images, q), (_, _, right), got in zip(shown, drawn, given)
        ]
    return table


def accuracy(rows) -> float:
    return sum(right == given for _, _, right, given in rows) / len(rows)


def sheet_of_errors(table, path: Path, each: int = 6) -> None:
    """The wrong answers beside their pictures: the kind of error says what to draw more of."""
    from matplotlib.figure import Figure

    wrong = [row for rows in table.values() for row in [r for r in rows if r[2] != r[3]][:each]]
    figure = Figure(figsize=(16, 2.6 * len(wrong) + 0.1), dpi=60)
    for i, (images, question, right, given) in enumerate(wrong):
        for k, image in enumerate(images):
            axes = figure.add_subplot(len(wrong), 4, 4 * i + 1 + k)
            axes.imshow(image)
            axes.axis("off")
        figure.text(
            0.5, 1 - (i + 0.9) / len(wrong), f"Q {question}\n= {right}\n! {given}", fontsize=11, wrap=True
        )
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n", type=int, default=100, help="pictures (or pairs) for each skill")
    parser.add_argument("--folder", type=Path, default=TINY)
    parser.add_argument("--skills", nargs="+", default=SKILLS, choices=SKILLS)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--wrong", type=Path, help="write the wrong answers and their pictures to this PNG")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers for each skill")
    args = parser.parse_args()
    table = evaluate(args.folder, args.seed, args.n, args.skills)
    for skill, rows in table.items():
        print(f"{skill:8} {accuracy(rows):6.1%} of {len(rows)}")
        for _, question, right, given in [r for r in rows if r[2] != r[3]][: args.show]:
            print(f"    {question}\n    right: {right!r}\n    given: {given!r}")
    if args.wrong:
        sheet_of_errors(table, args.wrong)
    if args.json:
        print(json.dumps({skill: round(accuracy(rows), 4) for skill, rows in table.items()}))


if __name__ == "__main__":
    main()
