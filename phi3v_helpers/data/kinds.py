"""The forms of objects, arrays, strings and numbers: see `schemas`.

A form is a dict, or None where nothing can fit it. schema: one part of a schema, with the keywords of its type alone.
inner: the function that gives the form of a part within it.
"""

from .formats import BY_GRAMMAR, PATTERNS
from .refusals import no_control, no_look_around, short, whole, wrong

MAX_TEXT = 200  # characters, where the schema has no maxLength
MAX_ITEMS = 100  # of an array, and names of an object, where the schema has no number of its own
MAX_NAME = 50  # characters of the names in a dict
MAX_NUMBER = 10**15  # up to there a float holds every whole number
SMALLEST = 1e-9  # decimals of a number

KEYWORDS = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "propertyNames"}
    | {"minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set(),
    "null": set(),
}
KEYWORDS["integer"] = KEYWORDS["number"]
_PYTHON = {"object": dict, "array": list, "string": str, "number": (int, float), "null": type(None)}


def form_of(kind, schema, inner, lenient):
    """The form of a part that is of this type."""
    if kind == "object":
        return (_object if "properties" in schema else _names)(schema, inner, lenient)
    if kind == "array":
        return _array(schema, inner)
    if kind == "string":
        return _string(schema)
    return _number(schema, kind) if kind in ("number", "integer") else {"type": kind}


def anything():
    """The form of whatever JSON has, one level deep."""
    single = [_string({}), _number({}, "number"), {"type": "boolean"}, {"type": "null"}]
    one = {"anyOf": single}
    several = {"type": "array", "minItems": 0, "maxItems": MAX_ITEMS, "items": one}
    return {"anyOf": [*single, several, _named(one, _any_name(), 0, MAX_ITEMS)], "any": True}


def allows_null(form):
    """Whether null fits a form."""
    branches = form.get("anyOf", form.get("oneOf", ()))
    return form.get("type") == "null" or None in form.get("enum", ()) or any(map(allows_null, branches))


def of_type(value, kind):
    """Whether a value, as json.loads gives it, is of a type of JSON Schema."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or isinstance(value, float) and value.is_integer()
    return kind in _PYTHON and isinstance(value, _PYTHON[kind])


def guessed(schema):
    """The one type that a part without a type is about, str. Raises PromptError."""
    kinds = [kind for kind, keywords in KEYWORDS.items() if set(schema) & keywords and kind != "integer"]
    if len(kinds) != 1:
        raise wrong("has a part without a type", "Name its type.")
    return kinds[0]


def _object(schema, inner, lenient):
    beside = {"patternProperties", "propertyNames", "minProperties", "maxProperties"} & set(schema)
    if beside and not lenient:
        raise wrong(f"has properties and {min(beside)} side by side", "Leave one of them out.")
    properties, required = schema["properties"], schema.get("required", [])
    if not isinstance(properties, dict):
        raise wrong("has properties that are no dict", 'Give a dict like {"total": {"type": "number"}}.')
    if not isinstance(required, list) or any(name not in list(properties) for name in required):
        raise wrong("requires what is not among its properties", "Name it there too.")
    forms = {}
    for name, part in properties.items():
        form = inner(part)
        if form is None and name in required:
            return None
        if form is not None:
            if name not in required and not allows_null(form):
                form = {"anyOf": [form, {"type": "null"}], "optional": True}
            forms[no_control(name)] = form | _description(part)
    return {
        "type": "object",
        "properties": forms,
        "required": list(forms),
        "additionalProperties": False,
    }


def _names(schema, inner, lenient):
    """An object whose properties have no names yet, as of a dict[str, int]."""
    if schema.get("required"):
        raise wrong("requires what is not among its properties", "Name it there too.")
    least, most = whole(schema, "minProperties", 0), whole(schema, "maxProperties", MAX_ITEMS)
    names, patterns = schema.get("propertyNames", {}), schema.get("patternProperties", {})
    values, pattern = schema.get("additionalProperties", True), _any_name()
    if not isinstance(names, dict) or not isinstance(patterns, dict):
        raise wrong("has patternProperties or propertyNames that are no dict", "Leave them out.")
    if not lenient and (len(patterns) > 1 or patterns and names or least > 1):
        raise wrong("has rules for names that are not supported", "Give one pattern for all, or none.")
    named = inner(names) if names else {}
    if named is None or "enum" in named:
        choices = named["enum"] if named else []
        return _object({"properties": {name: values for name in map(str, choices)}}, inner, lenient)
    if patterns:
        pattern, values = next(iter(patterns.items()))
    elif named:
        pattern = named.get("pattern") or _any_name(named["minLength"], named["maxLength"])
    form = inner(values)
    if form is None:
        form, most = {"type": "null"}, 0
    return _named(form, no_look_around(pattern), least, most) if least <= most else None


def _named(form, pattern, least, most):
    return {
        "type": "object",
        "patternProperties": {pattern: form},
        "additionalProperties": False,
        "minProperties": least,
        "maxProperties": most,
    }


def _any_name(least=1, most=MAX_NAME):
    return f"^[\\s\\S]{{{least},{most}}}$"


def _array(schema, inner):
    least = whole(schema, "minItems", 0)
    most = whole(schema, "maxItems", max(MAX_ITEMS, least))
    if not isinstance(schema.get("prefixItems", []), list):
        raise wrong("has prefixItems that are no list", "Give a list of schemas.")
    first = [inner(part) for part in schema.get("prefixItems", [])]
    others = inner(schema.get("items", not first))
    if others is None:
        most = min(most, len(first))
    if None in first or least > most:
        return None
    form = {"type": "array", "minItems": least, "maxItems": most, "items": others or False}
    return form | {"prefixItems": first} if first else form


def _string(schema):
    least, kind = whole(schema, "minLength", 0), schema.get("format")
    form = {"type": "string", "minLength": least}
    if "maxLength" in schema or kind not in PATTERNS:
        form["maxLength"] = whole(schema, "maxLength", max(MAX_TEXT, least))
    if "pattern" in schema:
        form["pattern"] = no_look_around(schema["pattern"])
    elif kind in PATTERNS:
        form |= {"pattern": PATTERNS[kind], "is": kind}
    elif kind in BY_GRAMMAR:
        form |= {"format": kind, "is": kind}
    return form


def _number(schema, kind):
    for keyword, value in schema.items():
        if not of_type(value, "number"):
            raise wrong(f"has the {keyword} {short(value)}", "Give a number.")
    form = {"type": kind} | ({"multipleOf": SMALLEST} if kind == "number" else {}) | schema
    low = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    high = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    if not low and min([MAX_NUMBER, *high]) > -MAX_NUMBER:
        form["minimum"] = -MAX_NUMBER
    if not high and max([-MAX_NUMBER, *low]) < MAX_NUMBER:
        form["maximum"] = MAX_NUMBER
    return form


def _description(part):
    text = part.get("description") if isinstance(part, dict) else None
    return {"description": text} if isinstance(text, str) and text.strip() else {}
