"""Whether two answers are the same: numbers with units, tuples, sets, text.

same_answer  equal as numbers, as tuples or sets of answers, or as caseless text
value        the number, tuple, set or text that an answer is
clean        a text without its typesetting
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
NUMBER = rf"(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,3}})?(?![0-9])"
SIGNED = rf"[-+]?{NUMBER}"
_CURRENCY = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen"}
_MULTIPLES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
MULTIPLES = rf"(?:\s+(?:{'|'.join(_MULTIPLES)})s?\b)*"  # 5 hundred thousand
_UNITS = {
    "%": "percent", "pct": "percent", "°": "degree", "usd": "dollar", "buck": "dollar",
    "kilometer": "km", "kilometre": "km", "meter": "m", "metre": "m", "centimeter": "cm",
    "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "kilogram": "kg", "gram": "g",
    "liter": "l", "litre": "l", "hour": "h", "hr": "h", "minute": "min", "second": "s", "sec": "s",
    "feet": "foot", "ft": "foot", "inche": "inch", "mile per hour": "mph", "km per hour": "km/h",
}  # fmt: skip
# Words after a number that change it or make it one of several.
CHANGES = (
    r"(?:or|and|to|pi|plus|minus|times|mod|choose|divided|multiplied|less than|more than|dozens?"
    r"|hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|[a-z]*(?:teen|tie|hundred|thousand|llion)th)s?"
    r"|squared|cubed|factorial|sqrt|root|sin|cos|tan|log|ln|exp|th|st|nd|rd)\b"
)
_NO_UNIT = re.compile(rf"\b(?:(?:not|if|nor|over|is|are|but|in)\b|{CHANGES})")
_LETTER_UNITS = set("mgshlL")


@dataclass(frozen=True)
class Quantity:
    number: Fraction
    unit: str = ""


Value = Quantity | tuple[str, tuple["Value", ...]] | str


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are equal: as exact numbers (1/2 = 0.5, 1,234 = 1234, 1e-3 = .001), as tuples
    or sets, element by element, else as caseless text.

    Units count where both name one: 5 km is 5 and is not 5 m; 50% is 50 and is not 0.5.
    """
    return _equal(value(first), value(second))


def clean(text: str) -> str:
    """``text`` without what only typesets it: bold, $, \\text{}, LaTeX spaces, Unicode signs."""
    text = re.sub("[\u2212\u2010-\u2013\ufe63\uff0d]", "-", text)
    text = re.sub(r"(?<=[0-9])(?:\\[,!; ]|[\u00a0\u2009\u202f]|\{,\})(?=[0-9]{3}(?![0-9]))", ",", text)
    text = text.replace("\\!", "").replace(",,", ",")
    text = re.sub(r"\\(?:[,;: ]|quad|qquad)|~|[\u00a0\u2009\u202f]", " ", text)
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    part = r"\s*(?:\{([^{}]*)\}|([0-9]))"
    text = re.sub(rf"\\frac{part}{part}", r"\\frac{\1\2}{\3\4}", text)
    text = re.sub("[\u00bc-\u00be\u2150-\u215e]", _vulgar, text)
    text = re.sub(r" ?\^ ?\{? ?\\(?:circ|degree)\s*\}?|\\degree", "°", text)
    for _ in range(2):
        text = re.sub(
            r"\\(?:text|math|mbox|operatorname)(?:bf|rm|it|sf|tt|normal)?\s*\{([^{}]*)\}", r" \1 ", text
        )
        text = re.sub(r"(?<![\w*])(\*\*\*|\*\*|\*|`|__)(\S|\S[^\n]{0,200}?\S)\1(?![\w*])", r"\2", text)
    text = re.sub(r"\\[()\[\]]|\$\$", " ", text)
    text = re.sub(r"(?<![\\$])\$([^$\n]*[^$\s\\])\$(?![\w$])", r"\1", text)  # $42$, not $42 and $43
    return text.replace("\\$", "$").replace("\\%", "%").replace("\\{", "\\lbrace ").strip()


def value(text: str) -> Value:
    """The number, tuple, set or plain text that an answer is."""
    text = clean(text).replace("\\lbrace", "\\{").strip()
    text = text.strip("\"'“”‘’ \t\n").lstrip("=≈: ").rstrip(".,;:!?= \n").strip()
    if inner := re.fullmatch(r"[A-Za-z](?:_\w)?\s*=\s*(.+)", text, re.S):
        text = inner[1]  # x = 5
    if (quantity := _quantity(text)) is not None:
        return quantity
    if group := re.fullmatch(r"(\\\{|[(\[{])(.*?)(\\\}|[)\]}])", text, re.S):
        parts = _split(group[2])
        if len(parts) == 1 and group[1] + group[3] in ("()", "{}"):
            return value(group[2])
        if parts:
            return group[1][-1] + group[3][-1], tuple(value(part) for part in parts)
    parts = _split(text)
    if len(parts) > 1 and all(_quantity(part.strip()) is not None for part in parts):
        return "", tuple(value(part) for part in parts)
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(text.casefold().split()))


def _vulgar(sign: re.Match[str]) -> str:
    """\u00bd as \\frac{1}{2}."""
    return "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign[0]).split("\u2044"))


def _split(text: str) -> list[str]:
    """Parts between the commas outside brackets; none if the brackets do not match."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return []
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [] if depth else parts


def _quantity(text: str) -> Quantity | None:
    """``text`` as one exact number with its unit, or None. Long numbers (over 400 signs) stay text."""
    if len(text) > 400:
        return None
    lead = re.fullmatch(r"([-+]?)\s*([$€£¥])\s*(.+)", text, re.S)
    if lead:
        text = lead[1] + lead[3]
    match = re.match(
        rf"([-+]?)\s*(?:(?:([0-9]+)\s*)?\\frac\s*\{{\s*({SIGNED})\s*\}}\s*\{{\s*({SIGNED})\s*\}}"
        rf"|(?:([0-9]+)\s+)?({NUMBER})\s*/\s*({SIGNED})"
        rf"|({NUMBER})(?:\s*(?:\\times|\\cdot|[×*·])\s*10\s*\^\s*\{{?\s*([-+]?[0-9]{{1,3}})\s*\}}?)?)",
        text,
    )
    if not match:
        return None
    sign, *groups = match.groups()
    whole, numerator, denominator = groups[:3] if groups[1] else groups[3:6]
    if numerator:
        if not _plain(denominator):
            return None
        number = _plain(numerator) / _plain(denominator) + int(whole or 0)
    else:
        number = _plain(groups[6]) * Fraction(10) ** int(groups[7] or 0)
    number = -number if sign == "-" else number
    unit = _unit(text[match.end() :], number)
    if unit is None or (lead and unit[1]):
        return None
    return Quantity(unit[0], _CURRENCY[lead[2]] if lead else unit[1])


def _plain(number: str) -> Fraction:
    return Fraction(number.replace(",", ""))


def _unit(rest: str, number: Fraction) -> tuple[Fraction, str] | None:
    """(number, unit) where ``rest`` is a multiple (million) and a unit or empty, else None."""
    attached, rest = rest[:1] not in ("", " "), rest.strip()
    words = rest.casefold().split()
    while words and (multiple := _MULTIPLES.get(words[0].removesuffix("s"))):
        number, words = number * multiple, words[1:]
    if not words:
        return number, ""
    rest = " ".join(words)
    if rest in _CURRENCY or rest in ("%", "°"):
        return number, _CURRENCY.get(rest) or _UNITS[rest]
    rest = re.sub(r"^in(?=$| ?\^| ?[²³])", "inch", rest)
    single = len(rest) == 1 and (attached or rest not in _LETTER_UNITS)
    if single or len(words) > 3 or _NO_UNIT.search(rest):
        return None
    if not re.fullmatch(r"[a-z°µ]+(?:[ /-][a-z]+)*(?:\s?\^?\{?[23²³]\}?)?", rest):
        return None
    power = re.search(r"\s?\^?\{?([23²³])\}?$", rest)
    name = rest[: power.start()] if power else rest
    name = " ".join(word.removesuffix("s") if len(word) > 2 else word for word in name.split())
    name = _UNITS.get(name, name)
    return number, name + {"2": "²", "3": "³"}.get(power[1], power[1]) if power else name


def _equal(first: Value, second: Value) -> bool:
    if isinstance(first, Quantity) and isinstance(second, Quantity):
        units = {first.unit, second.unit} - {""}
        return first.number == second.number and len(units) < 2
    if isinstance(first, tuple) and isinstance(second, tuple):
        (left, some), (right, others) = first, second
        if left != right or len(some) != len(others):
            return False
        if left == "{}":
            return all(any(_equal(a, b) for b in others) for a in some) and all(
                any(_equal(a, b) for a in some) for b in others
            )
        return all(map(_equal, some, others))
    return first == second
