"""What was done in a form, as Python that does it again without the form."""

import json


def ask_code(model, pictures, question, options):
    """A question as code. pictures: list of Python expressions (`Tray.as_code`). Returns str."""
    lines = [*_head(model), *_list("pictures", pictures)]
    lines += _call("answer = model.ask", ["pictures" if pictures else "None", _text(question)], options)
    return "\n".join([*lines, "answer"])


def chat_code(model, pictures, counts, questions, system, options):
    """A conversation as code. counts: the pictures of each turn. questions: list of str. Returns str."""
    shares = _shares(pictures, counts if questions else [len(pictures)])
    lines = _head(model)
    system = [f"system={_text(system)}"] if system else []
    lines += _call("chat = model.chat", [_inline(shares[0]) if shares[0] else "None", *system], {})
    for question, added in zip(questions, [[], *shares[1:]]):
        lines += _added(added)
        lines += _call("answer = chat.ask", [_text(question)], options)
    lines += _added(shares[-1]) if questions else []
    return "\n".join([*lines, "answer" if questions else "chat"])


def compare_code(models, sides):
    """Two questions as code. models: one or two. sides: two of (expressions of pictures, question, options)."""
    lines = [*_head(models[0]), *(load_code(model, "other") for model in models[1:])]
    (left, *_), (right, *_) = sides
    shared = bool(left) and left == right
    lines += _list("pictures", left) if shared else []
    for name, model, (pictures, question, options) in zip(("left", "right"), ("model", "other"), sides):
        given = "pictures" if shared else _inline(pictures) if pictures else "None"
        asked = model if len(models) > 1 else "model"
        lines += _call(f"{name} = {asked}.ask", [given, _text(question)], options)
    return "\n".join([*lines, 'print(left, right, sep="\\n\\n")'])


def load_code(model, name="model"):
    """The call that loads this model, str; a remark where nobody knows how it came to be."""
    if model.load_options is None:
        return f"# {name}: as you made it yourself"
    options = dict(model.load_options)
    source = _text(str(options.pop("model")))
    return f"{name} = p3v.load({', '.join([source, *_named(options)])})"


def _head(model):
    return ["import phi3v_helpers as p3v", "", load_code(model)]


def _list(name, items):
    if not items:
        return []
    if len(items) == 1:
        return [f"{name} = [{items[0]}]"]
    return [f"{name} = [", *(f"    {item}," for item in items), "]"]


def _inline(items):
    return f"[{', '.join(items)}]"


def _shares(pictures, counts):
    """The pictures of each turn, and at the end those that no turn has brought yet: a list of lists."""
    shares, left = [], list(pictures)
    for count in counts:
        shares.append(left[:count])
        left = left[count:]
    return [*shares, left]


def _added(pictures):
    return [f"chat.add({_inline(pictures)})"] if pictures else []


def _call(function, arguments, options):
    """`function(arguments, name=value)`, in one line where it fits."""
    arguments = [*arguments, *_named(options)]
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= 100 and "\n" not in line:
        return [line]
    return [f"{function}(", *(f"    {argument}," for argument in arguments), ")"]


def _named(options):
    return [f"{name}={_value(value)}" for name, value in options.items() if value is not None]


def _value(value):
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    return _text(str(value).removeprefix("torch."))  # torch.float16 and the like have names, too


def _text(text):
    """A str as people write it, in double quotes; with escapes where a character cannot be seen or copied."""
    plain = all(char.isprintable() or char in "\n\r\t" for char in text)
    return json.dumps(text, ensure_ascii=False) if plain else repr(text)
