"""Every file that is read, damaged in thousands of ways: each must give a picture or a helpful error, and soon.

    python tests/mutations.py --count 10000 --seed 0

The mutations run in processes of their own, so that a crash, a hang or an outgrown memory is seen and named. A
mutation is made of its number alone: `python tests/mutations.py --only 1234` does that one again, and saves its file.
"""

import argparse
import faulthandler
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MAX_SECONDS = 10  # for one file
MAX_BYTES = 1_500_000_000  # the most that a process may grow to
AT_A_TIME = 500  # mutations a process
FOLDER = Path(tempfile.gettempdir()) / "phi3v-mutations"


def seeds():
    """name -> (bytes, how it is opened)."""
    import corpus

    files = {name: (sample.data, "picture") for name, sample in corpus.corpus().items()}
    for name, sample in {**corpus.animations(), **corpus.videos()}.items():
        files[f"{name} frames"] = (sample.data, "frames")
    if "PDF" in files:
        pdf = corpus.encode(corpus.picture(), "PDF", save_all=True, append_images=corpus.numbered(2))
        files["PDF pages"] = (pdf, "pages")
    return files


def mutated(number):
    """Mutation number -> (name, bytes, how it is opened)."""
    chance = random.Random(number)
    files = seeds()
    name = chance.choice(sorted(files))
    data, how = files[name]
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(MUTATIONS)(data, chance, files)
    return name, bytes(data), how


def _cut(data, chance, files):
    return data[: chance.randrange(len(data) + 1)]


def _flip(data, chance, files):
    for _ in range(chance.choice((1, 2, 8, 64))):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    return data


def _head(data, chance, files):
    """An extreme number somewhere in the header: sizes, counts, offsets."""
    for _ in range(chance.choice((1, 2, 4))):
        width = chance.choice((1, 2, 4))
        extreme = chance.choice(
            (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 9000)
        )
        place = chance.randrange(max(min(len(data), chance.choice((32, 128, 600))), 1))
        number = (extreme % 256**width).to_bytes(width, chance.choice(("big", "little")))
        data[place : place + width] = number
    return data


def _splice(data, chance, files):
    other = files[chance.choice(sorted(files))][0]
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other)) :]


def _repeat(data, chance, files):
    start, stop = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    return data[:stop] + data[start:stop] * chance.choice((1, 2, 50)) + data[stop:]


def _remove(data, chance, files):
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.choice((1, 2, 4, 16, 300)) :]


def _inflate(data, chance, files):
    place = chance.randrange(len(data) + 1)
    return (
        data[:place] + bytes([chance.choice((0, 255, 65))]) * chance.choice((1, 100, 70_000)) + data[place:]
    )


MUTATIONS = (_cut, _flip, _flip, _head, _head, _head, _splice, _repeat, _remove, _inflate)


def outcome(data, how):
    """What came of a file, in a few words; raises where that may not be."""
    from phi3v_helpers.errors import ImageError
    from phi3v_helpers.images import frames, load_image, pages

    opened = {
        "picture": lambda: [load_image(data)],
        "frames": lambda: frames(data, 3),
        "pages": lambda: list(pages(data)),
    }[how]
    try:
        images = opened()
    except ImageError as error:
        assert error.what.endswith(".") and error.advice.endswith((".", ").")), str(error)
        assert len(error.what) < 300, error.what
        return _class(error.what)
    assert images and all(image.mode == "RGB" and min(image.size) > 0 for image in images)
    return "a picture"


def _class(what):
    for words in (
        "damaged or incomplete",
        "more pixels than is safe",
        "not safe to open",
        "no pixels",
        "empty",
        "not a picture",
        "too much memory",
        "more than",
    ):
        if words in what:
            return f"error: {words}"
    return "error: another"


def child(first, count):
    """Run mutations in this process; a line for each that was begun, and what came of it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, first + count):
        print(f"begin {number}", flush=True)
        name, data, how = mutated(number)
        faulthandler.dump_traceback_later(6 * MAX_SECONDS, exit=True)
        started = time.perf_counter()
        result = outcome(data, how)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(f"end\t{name}\t{result}\t{seconds:.4f}\t{peak}", flush=True)
        if seconds > MAX_SECONDS or peak > MAX_BYTES:
            raise SystemExit(f"{seconds:.1f} s, {peak / 1e6:.0f} MB")


def run(count, seed=0):
    """Mutations seed to seed + count -> (Counter of outcomes, slowest seconds, peak bytes, list of failures)."""
    results, slowest, peak, failures = Counter(), 0.0, 0, []
    here, end = seed, seed + count
    while here < end:
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(here), str(min(AT_A_TIME, end - here))],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for line in done.stdout.splitlines():
            if line.startswith("begin "):
                number = int(line.split()[1])
            elif line.startswith("end\t"):
                _, _, result, seconds, size = line.split("\t")
                results[result] += 1
                slowest, peak = max(slowest, float(seconds)), max(peak, int(size))
        if done.returncode:
            failures.append(
                f"mutation {number}, {save(number)}: exit status {done.returncode}\n{done.stderr[-3000:]}"
            )
        elif "Warning:" in done.stderr:  # libtiff writes there too, past Python
            failures.append(f"up to mutation {number}: a warning was printed\n{done.stderr[-3000:]}")
        here = number + 1
    return results, slowest, peak, failures


def save(number):
    """The file of a mutation, in the folder for temporary files: its path."""
    name, data, how = mutated(number)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{number}-{how}-{name.replace(' ', '_')}"
    path.write_bytes(data)
    return path


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=600, help="how many mutations")
    parser.add_argument("--seed", type=int, default=0, help="the number of the first")
    parser.add_argument("--only", type=int, help="one mutation: do it here, and save its file")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    if options.only is not None:
        print(save(options.only))
        return child(options.only, 1)
    started = time.perf_counter()
    results, slowest, peak, failures = run(options.count, options.seed)
    print(f"{sum(results.values())} mutations in {time.perf_counter() - started:.0f} s")
    for result, number in results.most_common():
        print(f"{number:7} {result}")
    print(f"slowest {slowest:.2f} s, peak {peak / 1e6:.0f} MB, failures {len(failures)}")
    print(*failures, sep="\n\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
