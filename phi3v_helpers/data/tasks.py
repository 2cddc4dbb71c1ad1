"""What the model is asked. The tiny model is trained on these very words: change them together with `training/`."""

TEXT = "Read the text in this image. Answer with the text alone."
FENCE = "```\n"  # the answer to TEXT is begun with it, and ends with a line ```

TABLE = "Read the table in this image. Answer with JSON: columns and rows."

OBJECTS = "Find the objects in this image. Answer with JSON: what, colour and where."

# types: see `wording.types`.
FIELDS = "Fill in this JSON from the image, with null for what it does not show: {types}"
