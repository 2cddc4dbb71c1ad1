"""Makes the tiny model from nothing: draws, trains in three stages, evaluates, writes the shipped folder.

    python -m training --minutes 300 --runs runs --folder phi3v_helpers/tiny           # on two CPU cores
    python -m training --minutes 22 --device cuda --workers 6 --batch 128              # on a GPU

Stages 1 and 2 run side by side, stage 3 after them.  Started again with the same --runs it goes on where it was;
with --further and no checkpoints, from the shipped model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from training.evaluate import TINY
from training.export import export

SHARE_OF_PARTS = 0.5  # of the time, for the stages that run side by side; the rest is for the joined model


def stage(name: str, *options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", f"training.{name}", *map(str, options)])


def finish(*stages: subprocess.Popen) -> None:
    codes = [process.wait() for process in stages]
    if any(codes):
        raise SystemExit(
            f"A stage of the training failed with exit code {max(codes, key=abs)}; what it printed is above."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=300)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints")
    parser.add_argument("--folder", type=Path, default=TINY, help="where the finished model goes")
    parser.add_argument("--further", action="store_true", help="stage 3 alone, from the model in --folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw, for each stage")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--n", type=int, default=100, help="pictures for each skill in the evaluation")
    args = parser.parse_args()
    eye, tongue, join = (args.runs / f"{name}.pt" for name in ("eye", "tongue", "join"))
    common = ("--device", args.device, "--workers", args.workers, "--batch", args.batch)
    parts = args.minutes * SHARE_OF_PARTS
    if args.further:
        parts = 0
    elif not join.exists():
        finish(
            stage("train_eye", "--minutes", parts, "--out", eye, *common),
            stage("train_tongue", "--minutes", parts, "--out", tongue, *common),
        )
    fit = 0.05 * args.minutes
    files = [
        "--eye",
        eye,
        "--tongue",
        tongue,
        "--out",
        join,
        *(("--start", args.folder) if args.further else ()),
    ]
    finish(
        stage("train_join", "--minutes", args.minutes - parts - fit, "--fit-minutes", fit, *files, *common)
    )
    export(join, args.folder)
    finish(stage("evaluate", "--folder", args.folder, "--n", args.n, "--json"))


if __name__ == "__main__":
    main()
