"""The same change to every part of a form (see `schemas`)."""


def over(form, change):
    """The form with change(part) in the place of each part, those within first. change: dict -> dict."""
    part = dict(form)
    for keyword in ("properties", "patternProperties"):
        if keyword in part:
            part[keyword] = {name: over(one, change) for name, one in part[keyword].items()}
    for keyword in ("anyOf", "oneOf", "prefixItems"):
        if keyword in part:
            part[keyword] = [over(one, change) for one in part[keyword]]
    if part.get("items"):
        part["items"] = over(part["items"], change)
    return change(part)
