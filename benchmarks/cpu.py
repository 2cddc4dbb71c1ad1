"""The CPU suite: ours against the published way, on a mid-size model with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass

import torch

from benchmarks import baseline, models
from benchmarks.timing import in_turn
from phi3v_helpers.model.cache import GrowingCache
from phi3v_helpers.prompts import build_prompt
from phi3v_helpers.vision import Phi3Vision

QUESTION = "What is shown in this image?"


@dataclass
class Row:
    """One comparison. baseline, ours: seconds, or bytes where `unit` is "bytes". note: what else was seen."""

    name: str
    title: str
    baseline: float
    ours: float
    unit: str = "s"
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.baseline / self.ours

    def as_dict(self) -> dict:
        return {**asdict(self), "ratio": self.ratio}


def run(size: str = "mid", repeats: int = 3, threads: int = 2, say=print) -> list[Row]:
    """All rows, told through `say` as they come."""
    torch.set_num_threads(threads)
    model, rows = models.build(size), []
    steps = [
        preprocess,
        image_prefill,
        vision_two_wide,
        second_question,
        batch_8,
        decode_256,
        peak_memory,
        start,
    ]
    for step in steps:
        for row in step(model, size, repeats):
            say(f"{row.title:58} {row.ratio:7.2f} x   {row.note}")
            rows.append(row)
    return rows


def preprocess(model, size, repeats):
    image_processor = models.processor().image_processor
    for width, height in ((1024, 768), (3000, 2000)):
        image = models.picture(width, height)
        theirs, mine = baseline.preprocess(image), image_processor(image)
        assert torch.equal(theirs[0], mine["pixel_values"]), "not the same pixels"
        ways = {"theirs": lambda i=image: baseline.preprocess(i), "ours": lambda i=image: image_processor(i)}
        seconds = in_turn(ways, 3 * repeats)
        title = f"cut a picture of {width} x {height} into 16 crops"
        yield Row(
            f"preprocess_{width}x{height}", title, seconds["theirs"], seconds["ours"], note="the same bits"
        )


def image_prefill(model, size, repeats):
    """From crops to the first logits: a grid of 4 x 3, and the global view."""
    published, processor = baseline.Published(model), models.processor()
    inputs = processor(build_prompt(QUESTION, 1), models.picture(1024, 768), return_tensors="pt")

    def theirs():
        features = published.encode(inputs["pixel_values"], inputs["image_sizes"])
        return published.prefill(inputs["input_ids"], features)[0][:, -1]

    @torch.inference_mode()
    def ours():
        return model(**inputs, logits_to_keep=1).logits[:, -1]

    apart = float((theirs() - ours()).abs().max())
    seconds = in_turn({"theirs": theirs, "ours": ours}, repeats, warm=0)
    yield Row(
        "image_prefill",
        "encode and read a picture of 13 crops",
        *seconds.values(),
        note=f"logits within {apart:.0e}",
    )


def vision_two_wide(model, size, repeats):
    """What the zero crops cost: two pictures of 11 crops in 17."""
    processor = models.processor()
    images = [models.picture(2000, 200, seed) for seed in (0, 1)]
    inputs = processor.image_processor(images)
    crops = inputs["pixel_values"].flatten(0, 1)
    kept = [
        part[: 1 + h * w // 336**2]
        for part, (h, w) in zip(inputs["pixel_values"], inputs["image_sizes"].tolist())
    ]
    only, vision = torch.cat(kept), model.model.vision_embed_tokens
    with torch.inference_mode():
        ways = {"all": lambda: vision.encode(crops), "ours": lambda: vision.encode(only)}
        seconds = in_turn(ways, repeats)
    note = f"{len(crops)} crops against {len(only)}: {len(crops) / len(only):.2f} x expected"
    yield Row("vision_two_wide", "encode two wide pictures, without the zeros", *seconds.values(), note=note)


def second_question(model, size, repeats):
    """Time to the first token of another question about the same picture."""
    published, vision = baseline.Published(model), _vision(model)
    image = models.picture(1024, 768)
    prompt = build_prompt("How many are there?", 1)
    vision.ask(image, QUESTION, max_new_tokens=1)
    seconds = in_turn(
        {
            "theirs": lambda: published.ask(vision.processor, image, prompt, 1),
            "ours": lambda: vision.ask(image, "How many are there?", max_new_tokens=1),
        },
        repeats,
        warm=0,
    )
    vision.forget()
    yield Row("second_question", "first token of a second question about a picture", *seconds.values())


def batch_8(model, size, repeats, new_tokens=32):
    """Eight questions about eight pictures, which are known: `ask` one by one against `ask_many`."""
    vision = _vision(model, num_crops=1)
    pairs = [(models.picture(336, 336, seed), f"{QUESTION} {'Why? ' * seed}") for seed in range(8)]
    options = {"max_new_tokens": new_tokens}
    alone = [vision.ask(*pair, **options) for pair in pairs]
    together = list(vision.ask_many(pairs, progress=False, **options))
    same = sum(one == other for one, other in zip(alone, together))
    seconds = in_turn(
        {
            "alone": lambda: [vision.ask(*pair, **options) for pair in pairs],
            "together": lambda: list(vision.ask_many(pairs, progress=False, **options)),
        },
        repeats,
        warm=0,
    )
    note = f"{same} of 8 answers the same"
    yield Row(
        "batch_8", "8 questions on 8 pictures at once, against one by one", *seconds.values(), note=note
    )


def decode_256(model, size, repeats, new_tokens=32):
    """Tokens after a context of 256, on one thread: published in float32, ours in bfloat16 and in float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    published = baseline.Published(model)
    half = models.build(size, dtype=torch.bfloat16)
    half.load_state_dict(model.state_dict())
    ids = torch.randint(300, 400, (1, 256), generator=torch.Generator().manual_seed(1))
    _, cache = published.prefill(ids[:, :-1])

    def theirs():
        cache.crop(ids.shape[1] - 1 - cache.get_seq_length())
        return published.write(ids, cache, new_tokens)

    def ours(which):
        start = GrowingCache()
        with torch.inference_mode():
            which.model(input_ids=ids[:, :-1], past_key_values=start, use_cache=True)

        def way():
            start.crop(ids.shape[1] - 1 - start.get_seq_length())
            return baseline.generate(which, ids, start, new_tokens)

        return way

    ways = {"theirs": theirs, "float32": ours(model), "bfloat16": ours(half)}
    written = ways["theirs"]()
    assert ways["float32"]() == written, "not the same tokens"
    seconds = in_turn(ways, repeats)
    torch.set_num_threads(threads)
    title = f"write {new_tokens} tokens after 256, one thread"
    yield Row(
        "decode_256_float32",
        f"{title}, float32",
        seconds["theirs"],
        seconds["float32"],
        note="the same tokens",
    )
    note = agreement(model, half, ids, written)
    yield Row("decode_256", f"{title}, bfloat16", seconds["theirs"], seconds["bfloat16"], note=note)


@torch.inference_mode()
def agreement(model, half, ids, written) -> str:
    """How near the bfloat16 weights come, on the text that float32 wrote."""
    ids = torch.cat([ids, torch.tensor([written])], dim=1)
    exact, near = model(input_ids=ids).logits[0], half(input_ids=ids).logits[0].float()
    same = (exact.argmax(-1) == near.argmax(-1)).float().mean().item()
    error = ((near - exact).norm() / exact.norm()).item()
    return f"likeliest token the same at {same:.1%} of places, logits {error:.1%} off"


def peak_memory(model, size, repeats):
    """Of a process that asks one question with 16 crops: what it needs beyond the loaded model."""
    needed = {way: measure_in_process(way, size) for way in ("theirs", "ours")}
    extra = {way: max(1, one["peak"] - one["before"]) for way, one in needed.items()}
    whole = needed["theirs"]["peak"] / needed["ours"]["peak"]
    note = f"of the whole process, libraries and weights included: {whole:.2f} x"
    yield Row("peak_memory", "memory of a question with 16 crops", *extra.values(), unit="bytes", note=note)


def measure_in_process(way: str, size: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", way, size, str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def start(model, size, repeats):
    """Importing this package against importing transformers; the tiny model's first answer in a fresh process."""
    first = (
        'import phi3v_helpers as p; p.load("tiny", verbose=False).ask(p.samples["shapes_1"], "What is it?")'
    )
    seconds = in_turn(
        {
            "transformers": lambda: _python("import transformers, torch"),
            "ours": lambda: _python("import phi3v_helpers"),
            "first answer": lambda: _python(first),
        },
        repeats,
        warm=1,
    )
    note = f"{seconds['ours']:.2f} s; first answer of the tiny model after {seconds['first answer']:.1f} s"
    yield Row(
        "start", "import, against torch and transformers", seconds["transformers"], seconds["ours"], note=note
    )


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _vision(model, num_crops: int = 16) -> Phi3Vision:
    return Phi3Vision(model, models.processor(num_crops), "random weights", num_crops)
