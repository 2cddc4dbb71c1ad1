"""How many answers are exactly right, by group, before and after; and the table of that."""

from dataclasses import dataclass

from .talks import pictures

AT_ONCE = 16


@dataclass(frozen=True, repr=False)
class Tuned:
    """before, after: {group: [right, asked]}, exact answers to what was kept back. losses: list of float, of each step,
    a token. seconds: of training."""

    before: dict
    after: dict
    losses: list
    seconds: float

    def __repr__(self):
        lines = [f"{'exact answers':16} {'before':>8} {'after':>8} {'of':>5}"]
        for group, (right, asked) in self.after.items():
            lines.append(f"{group[:16]:16} {_share(self.before[group])} {_share([right, asked])} {asked:5}")
        took = f"{self.seconds:.0f} s" if self.seconds < 600 else f"{self.seconds / 60:.0f} minutes"
        return "\n".join([*lines, f"{len(self.losses):,} steps in {took}"])


def exact_answers(vision, talks, shown, what):
    """{group: [right, asked]}: the last question of each talk, asked with what was said before it."""
    found = {group: [0, 0] for group in sorted({talk.group for talk in talks})}
    longest = max((len(vision.tokenizer(talk.turns[-1][1]).input_ids) for talk in talks), default=0)
    for start in shown(range(0, len(talks), AT_ONCE), what):
        part = talks[start : start + AT_ONCE]
        for talk, answer in zip(part, vision.run_many([_request(vision, talk, longest) for talk in part])):
            found[talk.group][0] += answer.text.strip() == talk.turns[-1][1]
            found[talk.group][1] += 1
    return found


def _request(vision, talk, longest):
    *history, (question, _) = talk.turns
    images = pictures(talk)
    counts = [len(images)] + [0] * len(history)
    return vision.request(images, question, history=history, image_counts=counts, max_new_tokens=longest + 8)


def _share(counts):
    right, asked = counts
    return f"{right / asked:8.1%}"
