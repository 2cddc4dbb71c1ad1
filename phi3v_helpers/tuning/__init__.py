"""Teaching a model something of one's own: `p3v.tune` trains an adapter, `p3v.load(..., adapter=...)` takes it along.

An adapter is LoRA (arXiv 2106.09685): beside each linear layer of the decoder two small matrices that are trained, and
nothing else is. It is made and read with PEFT, in PEFT's format: a few megabytes in a folder.
"""

from .start import tune

__all__ = ["tune"]
