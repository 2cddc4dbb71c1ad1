"""Stage 3 of 3: the eye and the tongue become one model.  Resumes from its checkpoint.

First the projector alone learns to hand over what the eye sees in the form that the decoder was taught on
(``PerfectEye``).  Then all of it learns together from pictures, with the eye's own labels as a second loss.

    python -m training.train_join --minutes 60 --out runs/join.pt --eye runs/eye.pt --tongue runs/tongue.pt

With ``--start`` it goes on from a finished model, the shipped one for example, instead of stages 1 and 2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from phi3v_helpers.model import Phi3VForCausalLM
from training import sight
from training.optimise import MuonAndAdamW
from training.schedule import Meter, Schedule, load, save
from training.shape import DECODER, VISION, model_config
from training.tokenizer import build
from training.train_tongue import Finger, PerfectEye, Talks, losses

AVERAGE = 0.998  # decay of the running average of the weights, which is what gets shipped
SIGHT = 0.5  # of the loss of the eye's labels beside that of the answers
ONE_VIEW = 0.5  # of the batches: each picture's crop alone, or its global view alone


def assemble(eye_path: Path, tongue_path: Path, heads, finger):
    """The whole model with the weights of stages 1 and 2, and the perfect eye; fills sight heads and finger too."""
    model, perfect = Phi3VForCausalLM(model_config(build())), PerfectEye(DECODER["hidden_size"])
    eye, tongue = (
        torch.load(path, map_location="cpu", weights_only=True) for path in (eye_path, tongue_path)
    )
    # The last layer of the ViT and the norm behind it are never run, so stage 1 has no values for them.
    tower = model.model.vision_embed_tokens.img_processor.vision_model
    missing = tower.load_state_dict(eye["eye"], strict=False).missing_keys
    assert all(key.startswith(f"encoder.layers.{VISION['num_hidden_layers'] - 1}.") for key in missing), (
        missing
    )
    missing = model.load_state_dict(tongue["model"], strict=False).missing_keys
    assert all("vision_embed_tokens" in key for key in missing), missing
    perfect.load_state_dict(tongue["eye"])
    heads.load_state_dict(eye["heads"])
    finger.load_state_dict(tongue["finger"])
    return model, perfect


def look(model, tower, pixel_values, eye_learns: bool = True):
    """(N, 3, 336, 336) -> patch features (N, patches, C) and token embeddings (N, tokens, D).

    With one crop the global view is the crop itself, so the ViT (``tower``, compiled or not) runs once for both.
    """
    vision = model.model.vision_embed_tokens
    with torch.set_grad_enabled(eye_learns):
        features = tower(pixel_values)
    merged = vision.merge_patches(features)  # (N, t, t, 4C)
    laid_out = torch.stack([vision.arrange(torch.stack([crop, crop]), 1, 1) for crop in merged])
    return features, vision.img_projection(laid_out)


def fit_projector(model, perfect, batches, seconds: float, device: str) -> None:
    """Teach the projector, and the separators, what the perfect eye says of the same pictures."""
    vision = model.model.vision_embed_tokens
    nn.init.normal_(vision.sub_GN, std=0.5)
    nn.init.normal_(vision.glb_GN, std=0.5)
    parameters = [vision.sub_GN, vision.glb_GN, *vision.img_projection.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    schedule, step = Schedule(optimiser, 2e-3, seconds / 60), 0
    while not schedule.done():
        *_, tables, frames = next(batches)
        schedule.step()
        with torch.no_grad():
            target = perfect(tables.to(device))
        with torch.autocast(device, torch.bfloat16):
            _, seen = look(model, vision.img_processor, sight.normalise(frames).to(device), eye_learns=False)
        loss = nn.functional.mse_loss(seen.float(), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"projector {step} unexplained {loss.item() / target.var().item():.3f}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--fit-minutes", type=float, default=4)
    parser.add_argument(
        "--eye-rests", type=float, default=0.1, help="share of the time in which the ViT is left as it is"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/join.pt"))
    parser.add_argument("--start", type=Path, help="a model folder to go on from")
    parser.add_argument("--eye", type=Path, default=Path("runs/eye.pt"))
    parser.add_argument("--tongue", type=Path, default=Path("runs/tongue.pt"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16, help="rows with one picture; half as many with two")
    parser.add_argument("--peak", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def begin(args, heads, finger):
    """The model to go on with, and the perfect eye where the projector is still to be fitted to it."""
    if args.out.exists():
        return Phi3VForCausalLM(model_config(build())), None
    if args.start:
        return Phi3VForCausalLM.from_pretrained(args.start, dtype=torch.float32), None
    return assemble(args.eye, args.tongue, heads, finger)


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    heads, finger = sight.SightHeads(VISION["hidden_size"]), Finger(DECODER["hidden_size"])
    model, perfect = begin(args, heads, finger)
    for part in (model, heads, finger):
        part.to(args.device)
    optimiser = MuonAndAdamW([model, heads, finger], args.peak)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE)
    )
    parts = {"model": model, "average": average, "heads": heads, "finger": finger, "optimiser": optimiser}
    state = load(args.out, **parts)
    step, rows = state.get("step", 0), state.get("rows", 0)
    talks = Talks(7777 + step, args.batch, render=True)
    batches = iter(DataLoader(talks, batch_size=None, num_workers=args.workers, prefetch_factor=8))
    if perfect is not None:
        fit_projector(model, perfect.to(args.device), batches, 60 * args.fit_minutes, args.device)
        average.module.load_state_dict(model.state_dict())

    schedule = Schedule(optimiser, args.peak, args.minutes, spent=state.get("seconds", 0))
    # On a CPU compiling the decoder gains nothing. For the ViT it takes a minute, and gains a half.
    decoder, tower = model.model, model.model.vision_embed_tokens.img_processor
    decoder = torch.compile(decoder) if args.device == "cuda" else decoder
    tower = torch.compile(tower) if args.minutes > 5 else tower
    meter = Meter()
    while not schedule.done():
        ids, labels, spots, tables, frames = (part.to(args.device) for part in next(batches))
        schedule.step()
        eye_learns = schedule.seconds() > args.eye_rests * 60 * args.minutes
        with torch.autocast(args.device, torch.bfloat16):
            features, seen = look(model, tower, sight.normalise(frames), eye_learns)
            loss, said = losses(model, decoder, finger, seen.flatten(0, 1), ids, labels, spots, ONE_VIEW)
        # While the eye rests, its heads learn all the same: they are new where the run began from a model folder.
        loss = loss + SIGHT * heads.loss(features.float(), tables)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update_parameters(model)
        step, rows = step + 1, rows + len(ids)
        meter.add(step, rows, *said)
        if step % 250 == 0:
            save(args.out, **parts, step=step, rows=rows, seconds=schedule.seconds())
    save(args.out, **parts, step=step, rows=rows, seconds=schedule.seconds())


if __name__ == "__main__":
    main()
