"""Two questions that are asked to be compared: what differs between them, and how their answers do.

Knows no widgets.
"""

from dataclasses import dataclass

from ..errors import ImageError
from . import markup
from .controller import DONE

WAYS = {
    "pictures": "two pictures, one question",
    "questions": "two questions",
    "settings": "two settings",
    "models": "two models",
}
SIDES = ("left", "right")


def offered(has_other, pictures):
    """What may differ, a list of WAYS, and which of them to begin with.

    has_other: whether there are two models. pictures: how many there are, int.
    """
    ways = [way for way in WAYS if way != "models" or has_other]
    return ways, "models" if has_other else "pictures" if pictures == 2 else "questions"


@dataclass(frozen=True)
class Side:
    """What one of the two is asked. pictures: list of `tray.Picture`. options: as in `Phi3Vision.ask`."""

    model: object
    pictures: list
    question: str
    options: dict

    def stream(self, stop):
        images = [picture.image for picture in self.pictures]
        return self.model.stream(images or None, self.question, stop=stop, **self.options)


def make_pair(way, models, pictures, questions, options):
    """Two Sides. Of what differs (one of WAYS) each has its own, of all else both have the first.

    pictures: all there are; the others are lists of two. Raises ImageError.
    """
    if way == "pictures" and len(pictures) != 2:
        raise ImageError(
            f"Two pictures are to be compared; the number of pictures here is {len(pictures)}.",
            "Add or remove some: the first one stands on the left, the second on the right.",
        )
    return [
        Side(
            models[place if way == "models" else 0],
            [pictures[place]] if way == "pictures" else pictures,
            questions[place if way == "questions" else 0],
            options[place if way == "settings" else 0],
        )
        for place in range(2)
    ]


def begin(way, sides):
    """What is asked, as a dict for people; it holds no picture."""
    return {"differs": way} | {name: _told(side) for name, side in zip(SIDES, sides)}


def conclude(result, jobs):
    """What `begin` gave, with what two Jobs came to: answer, state and note of each, and a verdict."""
    whole = all(job.state == DONE for job in jobs)
    ends = {
        name: result[name] | {"answer": job.text, "state": job.state, "note": job.error or job.note}
        for name, job in zip(SIDES, jobs)
    }
    verdict = markup.verdict(*(job.text for job in jobs)) if whole else ""
    return result | ends | {"verdict": verdict or "There are not two whole answers to compare."}


def particular(result, name):
    """What this side has for itself, str."""
    way, side = result["differs"], result[name]
    if way == "settings":
        return ", ".join(f"{option} {value}" for option, value in side["options"].items()) or "as usual"
    return {"pictures": ", ".join(side["pictures"]), "questions": side["question"], "models": side["model"]}[
        way
    ]


def _told(side):
    names = [picture.name for picture in side.pictures]
    return {
        "model": side.model.name,
        "question": side.question,
        "pictures": names,
        "options": dict(side.options),
    }
