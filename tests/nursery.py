"""A process that has imported everything, and forks others that run `phi3v`: they start at once, to be killed."""

import json
import os
import signal
import subprocess
import sys


class Nursery:
    """`with Nursery(log) as nursery`: log is a Path, to which the others write."""

    def __init__(self, log):
        self.log = log

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # Ctrl-C as a terminal gives it
        )
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(60)

    def start(self, *words):
        """Run `phi3v` with these words in a process of its own. Returns its number."""
        print(json.dumps([str(word) for word in words]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self):
        """Wait for the last one. Returns its exit status, and what it wrote. Until then its number is its own."""
        print("null", file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline()), self.log.read_text()


def main(log):
    import phi3v_helpers.folders.asking
    import phi3v_helpers.loading  # noqa: F401
    from phi3v_helpers import cli

    print("ready", flush=True)
    for line in sys.stdin:
        words = json.loads(line)
        if words is None:
            print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.argv = ["phi3v", *words]
            os._exit(cli.main())
        print(child, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
