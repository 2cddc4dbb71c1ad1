"""The steps of training: which rows, at which rate, and the loss."""

import math
import random
import time

import torch
from torch import nn

from ..model.cpu import at_best
from .state import save_checkpoint
from .talks import IGNORED, encode, side_by_side

WARM = 0.05  # of the steps, in which the learning rate rises; then it falls along a cosine
WEIGHT_DECAY = 0.01


def train(vision, parameters, talks, options, settings, folder, before, state, shown):
    """Train `parameters`, {name: tensor}, on from the state of a checkpoint, or None. Returns (losses, seconds)."""
    optimiser = torch.optim.AdamW(
        parameters.values(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.99)
    )
    per_epoch = -(-len(talks) // options.batch)
    total = options.epochs * per_epoch
    losses, spent = (state["losses"], state["seconds"]) if state else ([], 0.0)
    step = len(losses)
    if state:
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(state["adapter"][name])
        optimiser.load_state_dict(state["optimiser"])

    def keep():
        adapter = {name: value.detach() for name, value in parameters.items()}
        save_checkpoint(
            folder,
            {
                "settings": settings,
                "before": before,
                "losses": losses,
                "seconds": spent + time.monotonic() - started,
                "adapter": adapter,
                "optimiser": optimiser.state_dict(),
            },
        )

    started = saved = time.monotonic()
    bar = shown(range(step, total), "steps", initial=step, total=total)
    vision.model.train()
    for _ in bar:
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * rate(step, total)
        losses.append(_step(vision, _batch(talks, step, per_epoch, options), optimiser, parameters, options))
        if hasattr(bar, "set_postfix"):
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        step += 1
        if time.monotonic() - saved > options.checkpoint_seconds:
            keep()
            saved = time.monotonic()
    vision.model.eval()
    keep()
    return losses, spent + time.monotonic() - started


def rate(step, total):
    """Share of the learning rate at a step."""
    warm = max(1, round(WARM * total))
    return min(1, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / total))


def _batch(talks, step, per_epoch, options):
    """The talks of a step. The order is of the seed and the epoch alone, so a run that goes on finds its place."""
    epoch, place = divmod(step, per_epoch)
    order = list(range(len(talks)))
    random.Random(f"{options.seed} {epoch}").shuffle(order)
    return [talks[i] for i in order[place * options.batch : (place + 1) * options.batch]]


def _step(vision, talks, optimiser, parameters, options):
    """One step on these talks, `at_once` of them at a time. Returns the loss."""
    rows = [encode(vision, talk, options.max_tokens) for talk in talks]
    answers, said = sum(label != IGNORED for row in rows for label in row.labels), 0.0
    for start in range(0, len(rows), options.at_once):
        part = rows[start : start + options.at_once]
        with at_best(vision.device, vision.dtype, rows=sum(len(row.ids) for row in part)):
            loss = _loss(vision.model, part) / answers
            loss.backward()
        said += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return said


def _loss(model, rows):
    """Sum of the cross-entropies of all tokens of answers."""
    ids, labels, mask = side_by_side(rows, model.device)
    features = [feature for row in rows for feature in row.features] or None
    hidden = model.model(
        input_ids=ids, attention_mask=mask, image_features=features, use_cache=False
    ).last_hidden_state[:, :-1]
    chosen = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[chosen]).float()
    return nn.functional.cross_entropy(logits, labels[:, 1:][chosen], reduction="sum")
