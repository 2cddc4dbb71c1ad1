"""Which places of `input_ids` are pictures, and which picture goes where.

A picture's place is a run of image tokens, in one of two notations: transformers' positive `<|image|>` id,
filled with the pictures in their order, or the published processor's -n, filled with the n-th picture.
"""

import torch


def image_places(input_ids, image_token_id):
    """Boolean mask of the image tokens in `input_ids` (B, T); `image_token_id` may be None."""
    if image_token_id is None:
        return input_ids < 0
    return (input_ids < 0) | (input_ids == image_token_id)


def place_features(input_ids, features, image_token_id):
    """Find where image features go, and in which order.

    Args:
        input_ids: (B, T) int64.
        features: list of (tokens, D), one a picture.
        image_token_id: the positive id, or None.

    Returns:
        A boolean mask (B, T), and the features (mask.sum(), D) in the order of the mask.

    Raises:
        ValueError: places and features do not match.
    """
    places = image_places(input_ids, image_token_id)
    order = pictures_by_number(input_ids) if (input_ids < 0).any() else list(range(len(features)))
    needed, available = int(places.sum()), sum(len(one) for one in features)
    if needed != available or sorted(order) != list(range(len(features))):
        raise ValueError(
            f"input_ids has {needed} image tokens, and the {len(features)} pictures that came with it have "
            f"{available}. Pass input_ids, pixel_values and image_sizes of one call of the processor, uncut."
        )
    return places, torch.cat([features[picture] for picture in order])


def pictures_by_number(input_ids):
    """Indices of the pictures whose negative ids appear in `input_ids` (B, T), in the order of the places.

    Numbers start again at 1 in every row, or run on through the batch.
    """
    rows = [list(dict.fromkeys(-i - 1 for i in row if i < 0)) for row in input_ids.tolist()]
    flat = [number for row in rows for number in row]
    if len(set(flat)) == len(flat):
        return flat
    starts = [sum(len(earlier) for earlier in rows[:row]) for row in range(len(rows))]
    return [start + number for start, row in zip(starts, rows) for number in row]


def pictures_of_rows(input_ids, tokens, image_token_id):
    """For each row of `input_ids` the indices of its pictures; picture n has `tokens[n]` image tokens."""
    rows, picture = [], 0
    for places in image_places(input_ids, image_token_id).sum(-1).tolist():
        first = picture
        while places > 0 and picture < len(tokens):
            places -= tokens[picture]
            picture += 1
        rows.append(list(range(first, picture)))
    return rows
