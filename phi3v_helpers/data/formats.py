r"""Formats of strings as patterns that are finite, and that hold nothing but what exists: no 30th of February.

Patterns are for whole strings, in the syntax of JSON Schema without look-around. Digits are [0-9]: \d may be more.
"""

_DAYS = "(?:0[1-9]|1[0-9]|2[0-8])"  # that every month has
_MONTH_DAY = f"(?:(?:0[1-9]|1[0-2])-{_DAYS}|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
_BY_FOUR = "(?:0[48]|[2468][048]|[13579][26])"
_LEAP_YEAR = f"(?:[0-9]{{2}}{_BY_FOUR}|{_BY_FOUR}00)"
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"

_DATE = f"(?:{_YEAR}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_OFFSET = "(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"  # pictures seldom show one
_HEX = "[0-9a-f]"

PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}{_OFFSET}$",
    "date-time": f"^{_DATE}T{_TIME}{_OFFSET}$",
    "duration": "^P(?:[0-9]{1,4}D|(?:[0-9]{1,4}D)?T(?:[0-9]{1,4}H(?:[0-9]{1,2}M)?|[0-9]{1,4}M|[0-9]{1,5}S))$",
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
}
PATTERNS |= {  # as pydantic calls UUID1 to UUID8
    f"uuid{version}": f"^{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}$"
    for version in range(1, 9)
}

# What llguidance has patterns for.
BY_GRAMMAR = {"email", "hostname", "ipv4", "ipv6", "uri"}

# What the prompt says of them.
HINTS = {"date": "YYYY-MM-DD", "time": "hh:mm:ss", "date-time": "YYYY-MM-DDThh:mm:ss"}
