"""Stage 2 of 3: the decoder learns to read and to answer, with perfect eyes.  Resumes from its checkpoint.

No picture is drawn: the decoder sees the label grids themselves, embedded (``PerfectEye``).  It needs no ViT for that,
so this stage runs beside stage 1, and both are joined in stage 3.

    python -m training.train_tongue --minutes 45 --out runs/tongue.pt
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from phi3v_helpers.model import Phi3VForCausalLM
from training import data, sight
from training.canvas import NOWHERE, TOKENS
from training.optimise import MuonAndAdamW
from training.schedule import Meter, Schedule, load, save
from training.shape import DECODER, model_config
from training.tokenizer import build

PAIRS = 0.25  # of the batches have two pictures a row
ONE_VIEW = 0.8  # of the batches: each picture's crop alone, or its global view alone, see `thin`
ROOM = {False: 304, True: 448}  # most tokens in a row, for one picture and for two


class PerfectEye(nn.Module):
    """Label grids -> the embeddings of a picture, in the layout of phi3_v (crop, separator, global view)."""

    def __init__(self, width: int):
        super().__init__()
        sizes = {"chars": 64, "kinds": 16, "colours": 16}
        self.embed = nn.ModuleDict(
            {t: nn.Embedding(sight.CLASSES[t], sizes[t], padding_idx=0) for t in sizes}
        )
        slots = sum(4 * sight.SLOTS[t][0] * sight.SLOTS[t][1] * sizes[t] for t in sizes)
        self.project = nn.Linear(slots, width)
        self.place = nn.Parameter(torch.randn(TOKENS**2, width) * 0.3)
        self.row_end = nn.Parameter(torch.randn(width) * 0.3)
        self.separator = nn.Parameter(torch.randn(width) * 0.3)

    def grid(self, tables: torch.Tensor) -> torch.Tensor:
        """(N, patches, cells) -> (N, t * t, width): the token of every 2 x 2 patches."""
        truth = sight.split(tables)
        features = torch.cat(
            [self.embed[t](truth[t]).flatten(2) for t in self.embed], dim=-1
        )  # (N, patches, F)
        n, _, f = features.shape
        features = (
            features.reshape(n, TOKENS, 2, TOKENS, 2, f).permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
        )
        return self.project(features) + self.place

    def forward(self, tables: torch.Tensor) -> torch.Tensor:
        """(N, patches, cells) -> (N, IMAGE_TOKENS, width)."""
        grid = self.grid(tables)
        n, _, width = grid.shape
        ends = self.row_end.expand(n, TOKENS, 1, width)
        rows = torch.cat([grid.reshape(n, TOKENS, TOKENS, width), ends], dim=2).flatten(
            1, 2
        )  # (N, t * (t + 1), width)
        return torch.cat([rows, self.separator.expand(n, 1, width), rows], dim=1)


def blur(tables: torch.Tensor, rate: float) -> torch.Tensor:
    """Perfect eyes that slip now and then: characters lost, mistaken or imagined."""
    chars, rest = tables[..., : sight.SIZES[0]], tables[..., sight.SIZES[0] :]
    luck = torch.rand(chars.shape, device=chars.device)
    wrong = torch.randint(1, sight.CLASSES["chars"], chars.shape, dtype=torch.uint8, device=chars.device)
    chars = torch.where((chars > 0) & (luck < rate), torch.zeros_like(chars), chars)
    chars = torch.where((chars > 0) & (luck > 1 - rate), wrong, chars)
    chars = torch.where((chars == 0) & (luck > 1 - rate / 20), wrong, chars)
    return torch.cat([chars, rest], dim=-1)


def thin(is_image, luck: float, one_view: float = ONE_VIEW):
    """Which places of the rows to keep, (B, T) bool, the same number in each: one view of each picture, or both.

    With ``num_crops=1`` the crop and the global view are the same picture twice.  A decoder that sees the one or the
    other, at the positions where they stand, learns nearly the same from a good half of the tokens.
    """
    if luck > one_view:
        return torch.ones_like(is_image)
    crop = TOKENS * (TOKENS + 1)
    place = (is_image.cumsum(1) - 1) % data.IMAGE_TOKENS  # within its picture
    # The separator, between them, goes along.
    lost = (place <= crop) if luck < one_view / 2 else (place >= crop)
    return ~(is_image & lost)


class Finger(nn.Linear):
    """Points at what is read: from the hidden states of a middle layer to the image token of the next letter.

    The decoder finds out by itself only slowly that the next letter stands behind the last one; told where to look, it
    learns to.  Every image token of two pictures is a class.  Needed in training only.
    """

    LAYER, WEIGHT = 3, 0.5  # after so many layers of the decoder; of its loss beside that of the answers

    def __init__(self, width: int):
        super().__init__(width, 2 * TOKENS**2)

    def loss(self, output, spots):
        """``output`` is the decoder's, with all hidden states; ``spots`` (B, T) as ``data.Writer`` gives them."""
        hidden, spots = output.hidden_states[self.LAYER][:, :-1], spots[:, 1:]
        read = spots != NOWHERE
        if not read.any():
            return hidden.new_zeros((), dtype=torch.float32)
        return self.WEIGHT * nn.functional.cross_entropy(self(hidden[read].float()), spots[read])


class Talks(IterableDataset):
    """Endless (ids, labels, spots, tables, frames), see ``data.collate``."""

    def __init__(self, seed: int, rows: int, render: bool = False):
        self.seed, self.render = seed, render
        self.rows = {False: rows, True: max(1, rows // 2)}

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng, writer = random.Random(self.seed * 1000 + 500 + (info.id if info else 0)), data.Writer(build())
        while True:  # rows of about the same length go together
            pair = rng.random() < PAIRS
            n = self.rows[pair]
            rows = [data.example(rng, writer, pair, ROOM[pair], self.render) for _ in range(4 * n)]
            rows.sort(key=lambda row: len(row[0]))
            batches = [rows[i : i + n] for i in range(0, 4 * n, n)]
            rng.shuffle(batches)
            for batch in batches:
                yield data.collate(batch, writer.tokenizer.pad_token_id)


def answer_loss(model, hidden, labels):
    """Mean cross-entropy of the answers, and how many of the spelled and of the other tokens are right."""
    hidden, labels = hidden[:, :-1], labels[:, 1:]
    chosen = labels != data.IGNORE
    logits, labels = model.lm_head(hidden[chosen]).float(), labels[chosen]
    right = logits.argmax(-1) == labels
    spelled = (labels >= 9) & (labels < 9 + 256)  # single bytes: letters, digits, spaces before names
    loss = nn.functional.cross_entropy(logits, labels)
    return loss, right[spelled].float().mean().item(), right[~spelled].float().mean().item()


def losses(model, decoder, finger, seen, ids, labels, spots, one_view: float = ONE_VIEW):
    """(the loss of the answers and of the finger, (that of the answers, shares of right tokens) as numbers).

    ``seen`` (all image tokens, width) goes to the places of the pictures in ``ids`` (B, T); what `thin` drops is left
    out.
    """
    is_image = ids == model.config.image_token_id
    embeddings = model.model.embed_tokens(ids).masked_scatter(is_image[..., None], seen.float())
    kept, shape = thin(is_image, random.random(), one_view), (len(ids), -1)
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)[kept].view(shape)
    output = decoder(
        inputs_embeds=embeddings[kept].view(*shape, embeddings.shape[-1]),
        position_ids=positions,
        attention_mask=torch.ones_like(positions),  # or the gap would be taken for the end of a text
        use_cache=False,
        output_hidden_states=True,
    )
    said, *right = answer_loss(model, output.last_hidden_state, labels[kept].view(shape))
    return said + finger.loss(output, spots[kept].view(shape)), (said.item(), *right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--out", type=Path, default=Path("runs/tongue.pt"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--batch", type=int, default=16, help="rows with one picture; half as many with two")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = Phi3VForCausalLM(model_config(build())).to(args.device)
    del model.model.vision_embed_tokens  # not needed here
    eye = PerfectEye(DECODER["hidden_size"]).to(args.device)
    finger = Finger(DECODER["hidden_size"]).to(args.device)
    optimiser = MuonAndAdamW([model, eye, finger], args.peak)
    parts = {"model": model, "eye": eye, "finger": finger, "optimiser": optimiser}
    state = load(args.out, **parts)
    schedule = Schedule(optimiser, args.peak, args.minutes, spent=state.get("seconds", 0))
    step, rows = state.get("step", 0), state.get("rows", 0)
    fast = torch.compile(model.model) if args.device == "cuda" else model.model  # on a CPU it gains nothing
    loader = iter(
        DataLoader(Talks(1 + step, args.batch), batch_size=None, num_workers=args.workers, prefetch_factor=8)
    )
    meter = Meter()
    while not schedule.done():
        ids, labels, spots, tables, _ = next(loader)
        ids, labels, spots, tables = (t.to(args.device) for t in (ids, labels, spots, tables))
        schedule.step()
        with torch.autocast(args.device, torch.bfloat16):
            seen = eye(blur(tables, 0.02)).flatten(0, 1)
            loss, said = losses(model, fast, finger, seen, ids, labels, spots)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step, rows = step + 1, rows + len(ids)
        meter.add(step, rows, *said)
        if step % 500 == 0:
            save(args.out, **parts, step=step, rows=rows, seconds=schedule.seconds())
    save(args.out, **parts, step=step, rows=rows, seconds=schedule.seconds())


if __name__ == "__main__":
    main()
