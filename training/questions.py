"""From the facts of a picture to questions and answers: everything that the tiny model learns to say."""

from __future__ import annotations

from training.canvas import COLOURS, KINDS
from training.pictures import PLACES

NUMBERS = "no one two three four five six seven eight nine".split()
CANNOT_TELL = (
    "I am the tiny model and cannot tell. "
    "I know only bar charts, book covers, coloured shapes and short printed text."
)

DESCRIBE = (
    "What is shown in this image?", "Describe this image.", "What do you see?", "What is in this picture?",
    "Please describe the picture.", "Tell me what this image shows.", "Describe what you see in detail.",
    "What does the picture show?", "Can you describe the image?",
    "Could you please introduce this image to me?",
)  # fmt: skip
ASK = {
    "chart": (
        "Could you please introduce this stock to me?", "What does this chart show?", "Describe the chart.",
        "Please explain this chart.", "Summarise the chart.", "What are the values in the chart?",
        "Read all the values of the chart.", "Analyse this chart.", "List the years and their values.",
    ),
    "book": (
        "Help me get the title and author information of this book?",
        "What is the title and who is the author?",
        "Read the title and the author of this book.", "Which book is this?",
        "What book is this and who wrote it?",
        "Get the title and the author.", "Tell me the title and author of the book.",
    ),
    "scene": (
        "What shapes are in the image?", "List the shapes.", "Which shapes do you see?",
        "What objects are in the image?",
        "List all objects with their colour and position.", "What is where in this picture?",
        "Name the shapes and colours.",
    ),
    "page": (
        "Read the text in this image.", "What does the text say?", "Extract the text.", "What is written here?",
        "Read the text.", "Transcribe the text.", "Read all the text in the image and give me only the text.",
    ),
    "compare": (
        "What is difference in this two images?", "What is the difference between these two images?",
        "Compare the two images.", "Compare these pictures.", "What differs between the images?",
        "What has changed from the first image to the second?", "Find the differences.",
        "Describe and compare both images.",
    ),
    "same": ("Are these two images the same?", "Do the two pictures show the same?", "Is there any difference?"),
}  # fmt: skip
OFF_TOPIC = (
    "What is the capital of France?", "Who is the president?", "Write a poem about the sea.",
    "What is the weather today?",
    "How old is the man?", "Is this picture beautiful?", "Translate this into French.", "What is two plus two?",
    "Tell me a joke.", "Where was this photo taken?", "Which animal is this?", "What breed is the dog?",
    "Who are these people?",
    "Write Python code for a sort.", "What brand is the car?", "How much does it cost?", "What time is it?",
    "Should I buy this stock?", "What is the meaning of life?", "Explain quantum physics.",
    "How many people are there?",
    "What is the person doing?", "What city is this?", "Is it safe to eat this?", "Why is the sky blue?",
    "Hello!", "Hi",
    "Who are you?", "Are you Phi-3?", "Which model are you?", "What is your name?", "Can you help me?",
    "Thank you!",
)  # fmt: skip


def article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def shape_phrase(shape) -> str:
    cell, colour, kind = shape
    return f"{article(colour)} {kind} {PLACES[cell]}"


# The whole answer to each kind of picture ----------------------------------------------------------------------------


def tell(picture) -> str:
    return {
        "scene": tell_scene,
        "chart": tell_chart,
        "book": tell_book,
        "page": tell_text,
        "other": tell_other,
    }[picture.kind](picture.facts)


def tell_scene(facts) -> str:
    shapes = facts["shapes"]
    count = "There is one shape" if len(shapes) == 1 else f"There are {NUMBERS[len(shapes)]} shapes"
    return f"{count}: {listed([shape_phrase(s) for s in shapes])}."


def tell_chart(facts) -> str:
    pairs = list(zip(facts["years"], facts["values"]))
    high, low = max(pairs, key=lambda p: p[1]), min(pairs, key=lambda p: p[1])
    values = ", ".join(f"{year}: {value}" for year, value in pairs)
    return (
        f'The chart "{facts["title"]}" shows {values}. '
        f"The highest value is {high[1]} in {high[0]} and the lowest value is {low[1]} in {low[0]}."
    )


def tell_book(facts) -> str:
    return f'The title of the book is "{facts["title"]}" and the author is {facts["author"]}.'


def tell_text(facts) -> str:
    return "\n".join(facts["lines"])


def tell_other(facts) -> str:
    return CANNOT_TELL


# Two pictures --------------------------------------------------------------------------------------------------------


def in_short(picture) -> str:
    facts = picture.facts
    if picture.kind == "scene":
        return listed([shape_phrase(s) for s in facts["shapes"]])
    if picture.kind == "chart":
        return f'the chart "{facts["title"]}" from {facts["years"][0]} to {facts["years"][-1]}'
    if picture.kind == "book":
        return f'the book "{facts["title"]}" by {facts["author"]}'
    return "something that I cannot tell"


def differences(one, two) -> list[str]:
    """In words, what the second picture has otherwise; empty when nothing."""
    if one.kind != two.kind:
        names = {
            "scene": "shapes",
            "chart": "a chart",
            "book": "a book cover",
            "other": "something else",
            "page": "text",
        }
        return [f"the first shows {names[one.kind]} and the second {names[two.kind]}"]
    if one.kind == "scene":
        return _scene_differences(one.facts["shapes"], two.facts["shapes"])
    if one.kind == "chart":
        return _chart_differences(one.facts, two.facts)
    if one.kind == "book":
        return [f"the {key}" for key in ("title", "author") if one.facts[key] != two.facts[key]]
    return []


def _scene_differences(one, two) -> list[str]:
    first, second = (
        {cell: f"{article(colour)} {kind}" for cell, colour, kind in shapes} for shapes in (one, two)
    )
    cells = [c for c in range(9) if first.get(c) != second.get(c)]
    if len(cells) > 2:  # a list of everything would say the same twice
        return ["the shapes"]
    return [
        f"{PLACES[c]} there is {first.get(c, 'nothing')} in the first and {second.get(c, 'nothing')} in the second"
        for c in cells
    ]


def _chart_differences(one, two) -> list[str]:
    found = [f"the {key}" for key in ("title", "years") if one[key] != two[key]]
    changed = [
        f"the value for {year} is {a} in the first and {b} in the second"
        for year, a, b in zip(one["years"], one["values"], two["values"])
        if a != b
    ]
    return found + (["the values"] if found and changed or len(changed) > 1 else changed)


def tell_both(one, two) -> str:
    found = differences(one, two)
    if one.kind == two.kind == "other":
        return CANNOT_TELL
    shown = f"The first image shows {in_short(one)}, while the second image shows {in_short(two)}."
    if not found:
        return f"{shown} There is no difference."
    return f"{shown} The difference: {'; '.join(found)}."


# Dialogues -----------------------------------------------------------------------------------------------------------


def dialogue(rng, picture, turns: int, full: float = 0.5) -> list[tuple[str, str]]:
    """Questions about one picture; each the whole answer (``full`` of the time) or a detail."""
    result = []
    for _ in range(turns):
        luck = rng.random()
        if luck < 0.03:
            pair = (rng.choice(OFF_TOPIC), CANNOT_TELL)
        elif picture.kind == "other":
            every = [q for group in ASK.values() for q in group]
            pair = (
                rng.choice(
                    rng.choice((DESCRIBE, ASK["chart"], ASK["book"], ASK["scene"], ASK["page"], every))
                ),
                CANNOT_TELL,
            )
        elif luck < full or picture.kind == "page":
            pair = (rng.choice(rng.choice((ASK[picture.kind], ASK[picture.kind], DESCRIBE))), tell(picture))
        else:
            pair = {"scene": _scene_detail, "chart": _chart_detail, "book": _book_detail}[picture.kind](
                rng, picture.facts
            )
        if pair not in result:
            result.append(pair)
    return result


def dialogue_of_two(rng, one, two, turns: int) -> list[tuple[str, str]]:
    """The comparison, most often first; then whether they are the same, or a word about one of them."""
    result = [(rng.choice(ASK["compare"]), tell_both(one, two))]
    for _ in range(turns - 1):
        if rng.random() < 0.6:
            same = "No, they differ." if differences(one, two) else "Yes, they show the same."
            question = rng.choice(ASK["same"])
            if "difference" in question:
                same = "Yes, there is." if differences(one, two) else "No, there is none."
            result.append((question, same))
        else:
            which, picture = rng.choice((("first", one), ("second", two)))
            result.append(
                (
                    rng.choice((f"Describe the {which} image.", f"What does the {which} image show?")),
                    tell(picture),
                )
            )
    rng.shuffle(result) if rng.random() < 0.4 else None
    return result


def _scene_detail(rng, facts) -> tuple[str, str]:
    shapes = facts["shapes"]
    how = rng.choice(("count", "count_kind", "count_colour", "place", "place", "place", "colour", "where"))
    cell, colour, kind = rng.choice(shapes)
    if how == "count":
        return rng.choice(
            ("How many shapes are there?", "Count the shapes.", "How many objects are in the image?")
        ), ("There is one shape." if len(shapes) == 1 else f"There are {NUMBERS[len(shapes)]} shapes.")
    if how == "place":
        place = rng.randrange(9)
        found = [s for s in shapes if s[0] == place]
        what = f"{article(found[0][1])} {found[0][2]}" if found else "nothing"
        return f"What is {PLACES[place]}?", capital(f"{what} is {PLACES[place]}.")
    if how == "colour" and sum(s[2] == kind for s in shapes) == 1:
        return f"What colour is the {kind}?", f"The {kind} is {colour}."
    if how == "where" and sum(s[1:] == (colour, kind) for s in shapes) == 1:
        return f"Where is the {colour} {kind}?", f"The {colour} {kind} is {PLACES[cell]}."
    if how == "count_colour":
        colour = rng.choice((colour, rng.choice(list(COLOURS))))
        return f"How many {colour} shapes are there?", _there_are(
            sum(s[1] == colour for s in shapes), f"{colour} shape"
        )
    kind = rng.choice((kind, rng.choice(KINDS)))
    plural = kind + ("es" if kind == "cross" else "s")
    return f"How many {plural} are there?", _there_are(sum(s[2] == kind for s in shapes), kind)


def _there_are(n: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("cross") else "s")
    return f"There is one {noun}." if n == 1 else f"There are {NUMBERS[n]} {plural}."


def _chart_detail(rng, facts) -> tuple[str, str]:
    pairs = list(zip(facts["years"], facts["values"]))
    how = rng.choice(
        ("value", "value", "value", "title", "highest", "highest", "lowest", "lowest", "count", "years")
    )
    year, value = rng.choice(pairs)
    if how == "value":
        question = rng.choice(
            (
                f"What is the value for {year}?",
                f"How much was it in {year}?",
                f"What was the value in {year}?",
            )
        )
        return question, f"The value for {year} is {value}."
    if how == "title":
        return rng.choice(
            ("What is the title of the chart?", "What is the title?", "Read the title.")
        ), f'The title is "{facts["title"]}".'
    if how == "count":
        return rng.choice(
            ("How many bars are there?", "How many years does it show?")
        ), f"There are {NUMBERS[len(pairs)]} bars."
    if how == "years":
        return "Which years does the chart show?", f"It shows the years {pairs[0][0]} to {pairs[-1][0]}."
    year, value = (max if how == "highest" else min)(pairs, key=lambda p: p[1])
    question = rng.choice((f"Which year has the {how} value?", f"What is the {how} value?"))
    return question, f"The {how} value is {value} in {year}."


def _book_detail(rng, facts) -> tuple[str, str]:
    how = rng.choice(("title", "author", "text"))
    if how == "title":
        return rng.choice(
            ("What is the title?", "What is the title of the book?", "Read the title.")
        ), f'The title is "{facts["title"]}".'
    if how == "author":
        return rng.choice(
            ("Who is the author?", "Who wrote this book?", "What is the name of the author?")
        ), f"The author is {facts['author']}."
    return rng.choice(ASK["page"]), tell_text(facts)
