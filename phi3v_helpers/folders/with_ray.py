"""Items -> rows, with the models of a Ray cluster: `pip install "phi3v-helpers[ray]"`.

Ray Data gives each worker a few items at a time. Where a worker dies, Ray starts another one, which gets the same items
again; the journal, which the calling process alone writes, knows each row once.

Ray lets whoever reaches a cluster run programs in it, also in the one that is started here for as long as it works;
with RAY_AUTH_MODE=token its newer versions ask for a token.
"""

import json
import logging
import os
import socket
from collections import Counter
from contextlib import contextmanager

from ..batches import MOST
from ..errors import Phi3VError
from ..needs import needed

CORES = 4  # of a model without a GPU
STORE = 100 * 1024**2  # bytes that a cluster of our own shares between its processes: rows are small
PATIENCE = 10  # seconds for a cluster to answer
DEATHS = 3  # of workers over one picture, which is then not tried again


class Begun:
    """What workers have begun and not ended, for all of them: what is begun again has cost a worker its life."""

    def __init__(self):
        self._begun = Counter()

    def begin(self, key):
        """Returns how often that was begun before."""
        self._begun[key] += 1
        return self._begun[key] - 1

    def end(self, key):
        del self._begun[key]


class Asker:
    """A worker: a model that is loaded once, and asked for one batch of items after the other."""

    def __init__(self, spec, how, folder, cores, begun):
        import torch

        from ..loading import load
        from .asking import identity

        self.how, self.begun, self.refusal = how, begun, None
        if os.path.isdir(folder):
            os.chdir(folder)  # paths count from there
        if cores:
            torch.set_num_threads(cores)
        try:
            self.vision = load(**spec, verbose=False)
            self.who = identity(self.vision)
        except Phi3VError as error:
            self.refusal = error

    def __call__(self, batch):
        """batch: {"item": array of JSON} -> {"result": list of JSON}, [what, advice] or [who, place, row, may_pass]."""
        from .asking import refuse_options
        from .inputs import Item

        items = [Item(*json.loads(text)) for text in batch["item"]]
        try:
            if self.refusal:
                raise self.refusal
            refuse_options(self.vision, items, self.how["options"])
        except Phi3VError as error:
            return {"result": [json.dumps([error.what, error.advice])]}
        return {"result": [json.dumps([self.who, *row]) for row in self._rows(items)]}

    def _rows(self, items):
        """As `asking.rows_of`; one by one where a worker died over these items, to find which one kills."""
        import ray

        from .asking import row_of, rows_of

        if not ray.get(self.begun.begin.remote(f"from {items[0].place}")):
            yield from rows_of(self.vision, items, **self.how)
            return
        for item in items:
            if ray.get(self.begun.begin.remote(item.place)) < DEATHS:
                yield from rows_of(self.vision, [item], **self.how)
            else:
                error = Phi3VError(
                    f"{DEATHS} workers died over this picture.", "Try it alone, where there is more memory."
                )
                yield item.place, row_of(self.vision, error), False
            ray.get(self.begun.end.remote(item.place))


def rows_from_cluster(items, spec, vision, how, address, workers):
    """Iterator of (model's identity, place, row, may_pass), in the order in which they are done.

    address, workers: as ray and workers of `batch`. The rest: as there. Raises Phi3VError.
    """
    if vision is not None and vision.load_options is None:
        raise Phi3VError(
            f"Ray cannot load {vision.name} on other machines: it was not loaded by load.",
            "Give the name of a model, or a folder.",
        )
    with needed("ray", "Working with a cluster", "ray"):
        import ray.data as data
    import ray

    ours = not ray.is_initialized()
    if not ours and address is not True:
        raise Phi3VError(
            "This process is connected to a Ray cluster already.",
            "Give ray=True, or call ray.shutdown() first.",
        )
    if ours:
        _connect(ray, address)
    try:
        with _quiet(data):
            yield from _rows(ray, data, items, spec, how, workers)
    finally:
        if ours:
            ray.shutdown()


def _connect(ray, address):
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    where = os.environ.get("RAY_ADDRESS") if address is True else address
    try:
        if where and where != "local":
            _reach(where)
            ray.init(where, **quiet)
        else:
            ray.init("local", include_dashboard=False, object_store_memory=STORE, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")[:100]
        raise Phi3VError(
            f"The Ray cluster at {where or 'this machine'} cannot be reached ({reason}).",
            'Start it ("ray start --head"), give its address, or do without ray.',
        ) from error


def _rows(ray, data, items, spec, how, workers):
    import pyarrow as pa

    workers, resources, cores = _shares(ray.cluster_resources(), workers)
    size = 2 * (how["at_once"] or MOST)
    texts = [json.dumps([item.place, item.picture, item.question]) for item in items]
    blocks = [pa.table({"item": texts[start : start + size]}) for start in range(0, len(texts), size)]
    begun = ray.remote(Begun).options(num_cpus=0).remote()
    results = data.from_arrow(blocks).map_batches(
        Asker,
        batch_size=None,  # a block each
        compute=data.ActorPoolStrategy(size=min(workers, len(blocks))),
        fn_constructor_args=(spec, how, os.getcwd(), cores, begun),
        **resources,
    )
    try:
        for batch in results.iter_batches(batch_size=None, batch_format="numpy"):
            for text in batch["result"]:
                result = json.loads(text)
                if len(result) == 2:
                    raise Phi3VError(*result)
                yield result
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).strip().splitlines()), "")[:120]
        raise Phi3VError(
            f"The cluster gave up ({type(error).__name__}: {reason}).",
            "Look into its logs, and run the same again: what was done is kept.",
        ) from error


def _reach(address):
    """Raises OSError where nobody listens at host:port; Ray itself would try for minutes, and then end the process."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


@contextmanager
def _quiet(data):
    """No bars and no plans from Ray Data: there is a bar of our own."""
    settings, log = data.DataContext.get_current(), logging.getLogger("ray.data")
    before = settings.enable_progress_bars, log.level
    settings.enable_progress_bars = False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        settings.enable_progress_bars = before[0]
        log.setLevel(before[1])


def _shares(resources, workers):
    """(how many models, what Ray is to reserve for each, cores for each or None)."""
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    if gpus:
        return workers or gpus, {"num_gpus": 1}, None
    workers = min(workers or max(1, cores // CORES), cores)
    return workers, {"num_cpus": cores // workers}, cores // workers
