"""What was measured, as a table, as a picture, and as JSON: with the date, the machine and the versions."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path

import torch
import transformers


def about(threads: int | None = None) -> dict:
    """When and on what it was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows) -> str:
    """Markdown."""
    lines = ["| what | published way | ours | ratio | |", "|---|---|---|---|---|"]
    for row in rows:
        given = (amount(value, row.unit) for value in (row.baseline, row.ours))
        lines.append(f"| {row.title} | {' | '.join(given)} | {row.ratio:.2f} | {row.note} |")
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def plot(rows, path: Path, caption: str) -> None:
    """Bars of the ratios, on a scale of powers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    names, ratios = [row.title for row in rows][::-1], [row.ratio for row in rows][::-1]
    bars = axes.barh(names, ratios, color="#3b6ea5")
    axes.bar_label(bars, [f"{ratio:.1f} x" for ratio in ratios], padding=3)
    axes.set_xscale("log")
    axes.set_xlim(0.8, 2.5 * max(ratios))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times less than the published way needs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(caption, fontsize=9, color="#555555")
    figure.savefig(path, dpi=110)


def caption(facts: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    where = facts["gpu"] or f"{facts['processor']}, {facts['threads']} of {facts['cores']} cores"
    return f"{facts['date']} · {where} · {versions}"


def write(path: Path, rows: list[dict], facts: dict, **more) -> None:
    content = {**facts, **more, "rows": rows}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
