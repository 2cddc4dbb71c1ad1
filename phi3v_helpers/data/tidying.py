"""An answer against the form that it was written to (see `schemas`): optional properties that are null are left out."""

from .kinds import of_type


def tidied(value, form):
    """The value without the nulls that say "not shown" where the schema has no null, but can do without."""
    branches = form.get("anyOf", form.get("oneOf"))
    if branches:
        branch = next((branch for branch in branches if fits(value, branch)), None)
        return value if branch is None else tidied(value, branch)
    if isinstance(value, list) and form.get("type") == "array":
        return [tidied(one, part) for one, part in zip(value, _parts(value, form))]
    if isinstance(value, dict) and form.get("type") == "object":
        return {
            name: tidied(one, part)
            for (name, one), part in zip(value.items(), _parts(value, form))
            if not (one is None and part.get("optional"))
        }
    return value


def fits(value, form):
    """Whether a value has the shape of a form: enough to tell which branch of several it was written to."""
    branches = form.get("anyOf", form.get("oneOf"))
    if branches:
        return any(fits(value, branch) for branch in branches)
    if "enum" in form:
        return any(value == one and type(value) is type(one) for one in form["enum"])
    if not of_type(value, form["type"]):
        return False
    if isinstance(value, (dict, list)):
        parts = _parts(value, form)
        each = value.values() if isinstance(value, dict) else value
        return parts is not None and all(map(fits, each, parts))
    return True


def _parts(value, form):
    """The forms of the values within an object or array, in their order; None where it has others."""
    if isinstance(value, list):
        first = form.get("prefixItems", [])
        others = len(value) - len(first)
        return None if others > 0 and not form["items"] else first[: len(value)] + [form["items"]] * others
    if "properties" in form:  # a server may have another order
        parts = form["properties"]
        return [parts[name] for name in value] if value.keys() == parts.keys() else None
    (part,) = form["patternProperties"].values()
    return [part] * len(value)
