"""The same question about a great many pictures, restartable, on one machine or on many.

inputs: folders, patterns and lists -> one Item after the other. journal: what is done, safe from kills and full disks.
output: the file of answers. disk: how both are written. asking: Items -> rows, on this machine. with_ray: the same on
the machines of a cluster. running: all of it together, `batch`. needs: packages that only some runs need.
"""

from .running import batch

__all__ = ["batch"]
