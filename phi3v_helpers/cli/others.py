"""`phi3v doctor`, `phi3v demo` and `phi3v cache`."""

import json

from .options import add_command, add_model_options
from .terminal import width


def add_doctor(commands):
    parser = add_command(
        commands,
        "doctor",
        _doctor,
        "look whether this machine has what is needed, and how fast it is",
        "Look at Python, packages, devices and models: one line for each, and what to do where something is amiss. "
        "Takes about ten seconds. The exit status is 1 where a line says FAIL. Names no secrets.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--online", action="store_true", help="ask the Hugging Face Hub, too")


def _doctor(options):
    from ..doctor import Report, checks

    report = Report()
    for check in checks(options.online):
        report.append(check)
        if not options.json:
            print(check.line(width()), flush=True)
    if options.json:
        print(json.dumps(report.as_dict(), indent=1))
    return 0 if report.ok else 1


def add_demo(commands):
    parser = add_command(
        commands, "demo", _demo, "ask the three questions of the lessons, about pictures that ship"
    )
    add_model_options(parser)


def _demo(options):
    from ..demo import demo

    demo(options.model, device=options.device, dtype=options.dtype)


def add_cache(commands):
    parser = add_command(commands, "cache", _cache, "show or clear the pictures that were fetched and kept")
    parser.add_argument("--clear", action="store_true", help="delete them")


def _cache(options):
    from ..images import web_cache
    from ..memory_use import size

    folder, files, nbytes = web_cache.info()
    if options.clear:
        web_cache.clear()
    done = "cleared, there were" if options.clear else "holds"
    print(f"{folder} {done} {files:,} pictures, {size(nbytes)}")
