"""A cache of keys and values that grows in place.

transformers' `DynamicCache` copies everything it holds to add one token. This one leaves room behind what it holds: a
token more is written into it, and a cache that was cropped to a common beginning is continued without a copy.
"""

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 256  # tokens; at least an eighth of what is held


class GrowingLayer(DynamicLayer):
    """`keys` and `values` (B, heads, T, D) are the beginnings of longer tensors."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.longer = {}

    def update(self, key_states, value_states, *args, **kwargs):
        """Write the new tokens behind the others; returns all keys and all values."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.keys = self._append("keys", self.keys, key_states)
        self.values = self._append("values", self.values, value_states)
        return self.keys, self.values

    def _append(self, name, held, new):
        start = 0 if held is None or held.numel() == 0 else held.shape[-2]
        end = start + new.shape[-2]
        longer = self.longer.get(name)
        if start == 0 or not _begins(held, longer) or end > longer.shape[-2]:
            longer = new.new_empty(*new.shape[:2], end + max(ROOM, end // 8), new.shape[-1])
            if start:
                longer[:, :, :start] = held
            self.longer[name] = longer
        longer[:, :, start:end] = new
        return longer[:, :, :end]


class GrowingCache(DynamicCache):
    """A `DynamicCache` of `GrowingLayer`s: `model.generate(..., past_key_values=GrowingCache())`."""

    def __init__(self):
        super().__init__()
        self.layer_class_to_replicate = GrowingLayer


def _begins(held, longer):
    """Whether `held` is a view of the beginning of `longer`: other operations of a cache put new tensors there."""
    return longer is not None and held.data_ptr() == longer.data_ptr() and held.stride() == longer.stride()


def side_by_side(caches):
    """The caches of single rows as one cache of a batch, which is padded with zeros on the left."""
    longest, batch = max(cache.get_seq_length() for cache in caches), GrowingCache()
    for number in range(len(caches[0].layers)):
        joined = []
        for name in ("keys", "values"):
            rows = [getattr(cache.layers[number], name) for cache in caches]  # each (1, heads, T, D)
            tensor = rows[0].new_zeros(len(rows), rows[0].shape[1], longest, rows[0].shape[3])
            for place, row in enumerate(rows):
                tensor[place, :, longest - row.shape[2] :] = row[0]
            joined.append(tensor)
        batch.update(*joined, number)
    return batch
