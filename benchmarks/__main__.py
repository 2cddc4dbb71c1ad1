"""Measures, prints a table, and with --json and --plot keeps it.

python -m benchmarks --suite cpu --json benchmarks/results/cpu.json --plot benchmarks/results/cpu.png
python -m benchmarks --suite gpu --json benchmarks/results/gpu.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", choices=("small", "mid", "full"), help="mid for the CPU, full for a GPU")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way, in turn; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda", help="of the GPU suite")
    parser.add_argument("--new-tokens", type=int, default=128, help="of the GPU suite")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="write a picture of the ratios to this file")
    args = parser.parse_args()
    facts = report.about(args.threads)
    print(report.caption(facts))
    if args.suite == "gpu":
        from benchmarks import gpu

        rows, more = gpu.run(args.size or "full", args.device, args.repeats, args.new_tokens), {}
    else:
        from benchmarks import cpu

        compared = cpu.run(args.size or "mid", args.repeats, args.threads)
        rows, more = [row.as_dict() for row in compared], {"ratios": {r.name: r.ratio for r in compared}}
        print(f"\n{report.table(compared)}")
        if args.plot:
            report.plot(compared, args.plot, report.caption(facts))
    if args.json:
        report.write(args.json, rows, facts, suite=args.suite, **more)


if __name__ == "__main__":
    main()
