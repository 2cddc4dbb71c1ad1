"""Muon for the matrices inside the layers, AdamW for everything else, as one optimiser.

Muon (Jordan et al. 2024) turns every step of a matrix into one of equal strength in all directions.  In a trial, the
eye read characters with an F1 of 0.24 after 8,800 pictures; with AdamW alone, and without the waves of
``train_eye.place``, it was at 0.03.
"""

from __future__ import annotations

import torch


class MuonAndAdamW:
    """What the training loops need of an optimiser: parameter groups, ``zero_grad``, ``step`` and its state."""

    def __init__(self, modules, rate: float, weight_decay: float = 0.03):
        named = [(name, p) for module in modules for name, p in module.named_parameters()]
        inner = [p for name, p in named if p.ndim == 2 and ".layers." in f".{name}"]
        chosen = {id(p) for p in inner}
        other = list({id(p): p for _, p in named if id(p) not in chosen}.values())
        self.parts = [
            torch.optim.Muon(
                inner, lr=rate, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(other, lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay),
        ]
        self.parameters = [*inner, *other]

    @property
    def param_groups(self) -> list[dict]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Clips the gradient to a norm of 1, and takes the step."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        return {str(i): part.state_dict() for i, part in enumerate(self.parts)}

    def load_state_dict(self, state: dict) -> None:
        for i, part in enumerate(self.parts):
            part.load_state_dict(state[str(i)])
