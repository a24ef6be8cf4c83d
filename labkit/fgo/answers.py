"""Final answers: where a text states one (values: whether two are the same).

final_answer  the answer that a completion ends on
stated        the answer that a text marks as such: <answer>, \\boxed{}, ####, "the answer is"; else None
"""

import re

from labkit.fgo.values import CHANGES, MULTIPLES, NUMBER, SIGNED, Quantity, clean, value

_BARE = r"[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_FRACTION = r"\\frac\s*\{[^{}]*\}\s*\{[^{}]*\}"
_MIXED = rf"[-+]?(?:[0-9]+\s*{_FRACTION}|[0-9]+\s+[0-9]+/[0-9]+(?![/0-9]))"  # 1 1/2
_TUPLE = rf"[(\[]\s*{_BARE}(?:\s*,\s*{_BARE})+\s*[)\]]"
_LIST = rf"{_BARE}(?:[,/:]{_BARE})*"  # 1,2 and 20/6/2020 are one thing each
# No sign after a word or bracket: 5-3 ends on 3.
_LOOSE = re.compile(
    rf"(?:{_TUPLE}|(?<![\w.)]){_MIXED}|[-+]?{_FRACTION}|(?<![\w.)])(?:{SIGNED}(?![,/:]?[0-9])|{_LIST})"
    rf"|{NUMBER}){MULTIPLES}"
)
_HEAD = re.compile(
    rf"(?:{_TUPLE}|{_MIXED}|[-+]?{_FRACTION}|-?[$€£¥]?(?:{SIGNED}(?![,/:]?[0-9])|{_LIST}))(?:%|{MULTIPLES})"
    rf"(?=[\s.,;:!?)]|$)(?!\s*(?:(?:[-+*/^=×·÷]|\\(?:times|cdot|div))(?:\s|[0-9])|{CHANGES}))"
    rf"(?!(?:,\s*{_BARE})*,?\s*(?:or|and)\s+{_BARE})"  # 3, 4 or 5
)
_SENTENCE = re.compile(r"\banswer\b[^\n.:=]{0,60}?(?:\bis\b|\bequals\b|:|=)[ \t:]*\n?([^\n]+)", re.I)
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.I | re.S)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<box>\{)|(?P<bare>[^\s{}$\\]+))|\\.|[{}]", re.S)
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*(\S[^\n]*)")

Completion = str | list[dict[str, str]]  # TRL hands over messages where the prompt is a conversation


def text_of(completion: Completion) -> str:
    """The text of a completion, or of the last message where it is a conversation."""
    return completion if isinstance(completion, str) else completion[-1]["content"] or ""


def final_answer(completion: Completion) -> str:
    """The answer that a completion marks as its own (``stated``), else its last number, else all of it."""
    text = text_of(completion)
    found = stated(text)
    if found is not None:
        return found
    plain = clean(_after_thought(text))
    numbers = _LOOSE.findall(plain)
    return numbers[-1] if numbers else plain


def stated(text: str) -> str | None:
    """What the last <answer>, \\boxed{}, \\fbox{} or #### of ``text`` holds, else what follows "answer is".

    A #### line counts if it holds a number (72, $18.50) or ends the text: others are headings.
    """
    text = _after_thought(text)
    found = [(match.start(), match[1]) for match in _TAG.finditer(text)] + _boxes(text)
    lines = [(match.start(), match[1], match.end()) for match in _HASHES.finditer(text)]
    found += [(start, line) for start, line, _ in lines if isinstance(value(line), Quantity | tuple)
              and not re.search("[A-Za-z]", line)]  # fmt: skip
    if found:
        return _inside(max(found, key=lambda pair: pair[0])[1])
    if lines and not text[lines[-1][2] :].strip():
        return _inside(lines[-1][1])
    sentences = _SENTENCE.findall(clean(text))
    return _in_sentence(sentences[-1]) if sentences else None


def _after_thought(text: str) -> str:
    tail = text.rpartition("</think>")[2]
    return tail if tail.strip() else text


def _boxes(text: str) -> list[tuple[int, str]]:
    """(position, content) of every \\boxed{...} whose braces close, however deep."""
    found, opened = [], []  # one pass: a model may open thousands that it never closes
    for match in _BOX.finditer(text):
        if match["bare"]:
            found.append((match.start(), match["bare"]))
        elif match["box"] or match[0] == "{":
            opened.append(match if match["box"] else None)
        elif match[0] == "}" and opened and (box := opened.pop()):
            found.append((box.start(), text[box.end() : match.start()]))
    return found


def _inside(text: str) -> str:
    """The answer within a tag, which may hold another tag or say that it is the answer."""
    if boxes := _boxes(text):
        return _inside(boxes[-1][1])
    if line := _HASHES.search(text):
        return line[1].strip()
    sentence = _SENTENCE.search(clean(text))
    return _in_sentence(sentence[1]) if sentence else text.strip()


def _in_sentence(rest: str) -> str:
    """The answer at the head of what follows "the answer is": a value, else its last number, else all."""
    rest = clean(rest)
    if isinstance(value(rest), Quantity | tuple):
        return rest
    if head := _HEAD.match(rest):
        return head[0]
    if rest[:1] and rest[0] in "+-.0123456789\\([":  # 5x, 2\pi, 3 or 4: a value, but no number
        return rest.rpartition("=")[2].strip()
    numbers = _LOOSE.findall(rest)
    return numbers[-1] if numbers else rest
