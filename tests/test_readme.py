"""The README's commands and code run, its links lead somewhere, and its numbers are right."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbtools import README, ROOT

TEXT = README.read_text(encoding="utf-8")
FENCE = re.compile(
    r"(?:<!-- no-run: (?P<reason>[^>]+) -->\n)?^```(?P<kind>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)
FENCES = [match.groupdict() for match in FENCE.finditer(TEXT)]
NO_RUN_ALLOWED = 4  # fences that the tests may leave out


def name(fence):
    return fence["code"].splitlines()[0]


def test_every_fence_was_found():
    assert len(FENCES) == len(re.findall(r"^```\w", TEXT, re.M)) > 0


def test_few_fences_are_left_out():
    assert len([fence for fence in FENCES if fence["reason"]]) <= NO_RUN_ALLOWED


@pytest.mark.parametrize("fence", [fence for fence in FENCES if not fence["reason"]], ids=name)
def test_fence_runs(fence, tmp_path):
    commands = {"python": [sys.executable, "-c"], "bash": ["bash", "-euo", "pipefail", "-c"]}
    assert fence["kind"] in commands, "neither python nor bash: mark it <!-- no-run: reason -->"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [*commands[fence["kind"]], fence["code"]]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip(), "it prints nothing"


def anchors():
    """The names that headings can be linked by, as they are made from their texts."""
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXT))))
def test_link_leads_somewhere(link):
    path, _, anchor = link.partition("#")
    assert not path or (ROOT / path).exists()
    assert not anchor or path or anchor in anchors()


def test_notebooks_can_link_to_the_lessons():
    assert "the-lessons" in anchors()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", TEXT, re.M))))
def test_quoted_make_target_exists(target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.M)


# --- Numbers that are quoted -----------------------------------------------------------------------


@pytest.mark.parametrize("num_crops, tokens", [(4, "757"), (16, "2,353")])
def test_tokens_of_a_picture(num_crops, tokens):
    from PIL import Image

    from phi3v_helpers.model import Phi3VImageProcessor

    processor = Phi3VImageProcessor(num_crops=num_crops)
    batch = processor([Image.new("RGB", (1920, 1080))], return_tensors="np")
    assert f"{int(batch['num_img_tokens'][0]):,}" == tokens
    assert f"{tokens} with `num_crops={num_crops}`" in TEXT


def test_memory_of_a_conversation():
    layers, heads, width, both, bfloat16 = 32, 32, 96, 2, 2
    token = layers * heads * width * both * bfloat16  # bytes of keys and values
    assert f"{token / 2**20:.3f} MiB a token" in TEXT
    assert f"{token * 757 / 2**30:.1f} GiB for a picture of 757 tokens" in TEXT
    assert f"{token * 4096 / 2**30:.1f} GiB at 4,096" in TEXT
    assert f"{token * 131_072 / 2**30:.0f} GiB at 131,072" in TEXT


def test_size_of_the_tiny_model():
    files = (ROOT / "phi3v_helpers" / "tiny").glob("*")
    assert "less than 16 MB" in TEXT
    assert sum(file.stat().st_size for file in files) < 16e6


def test_the_tests_that_the_promises_name_are_there():
    text = (ROOT / "tests/README.md").read_text(encoding="utf-8")
    file, missing = None, []
    for name, test in re.findall(r"`(?:(test_\w+\.py)?(?:::(test_\w+))?)`", text):
        file = name or file
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        if test and f"def {test}(" not in source:
            missing.append(f"{file}::{test}")
    assert missing == []
    assert text.count("::test_") > 40
