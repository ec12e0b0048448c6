"""What the demo engine finds in a text: names, addresses, numbers, dates, topics and arithmetic, by simple patterns."""

from __future__ import annotations

import ast
import calendar
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime

# Quantifiers are bounded or anchored at the start of a run, so that no input makes a search quadratic.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"https?://[^\s<>\"')]+[^\s<>\"').,;:!?]")
_PHONE = re.compile(r"(?<![\w.,])\+?\(?\d{1,4}\)?(?:[ /.-]?\(?\d{2,5}\)?){2,4}(?!\w)")
_MONTH = rf"(?:{'|'.join(calendar.month_name[1:])})"
_DATE = re.compile(
    rf"\b(?:\d{{4}}-\d\d-\d\d|\d{{1,2}}\.\d{{1,2}}\.\d{{4}}|\d{{1,2}} {_MONTH} \d{{4}}|{_MONTH} \d{{1,2}}, \d{{4}})\b"
)
_DATE_FORMATS = ("%Y-%m-%d", "%d.%m.%Y", "%d %B %Y", "%B %d, %Y")
_NUMBER = re.compile(r"(?<![\w.,-])-?(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,15})?(?!\w|\.\d)")
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")

# The class is "a letter that is not lower case" as far as Latin-1 goes; `re` has no \p{Lu}.
_CAPITALISED = r"[^\W\d_a-zß-öø-ÿ][\w'\u2019-]*"
_NAME_RUN = re.compile(rf"\b{_CAPITALISED}(?:[ \t]+(?:& )?{_CAPITALISED})*")

_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about after again also always am an and any are as at be because been before being between both but by can
        could dear did do does every find first for found from further give good had has have he hello her here hers hey
        hi him his how i if in into is it its let list many me might more most much must my never no none not of often
        on only or other our ours please regards same several shall she should since so some such tell than thank thanks
        that the their theirs them then there these they thing things think this those through to today tomorrow under
        until us using very was we were what when where which while who whole whose why will with without would write
        yes yesterday yet you your yours
        """,
    )
).union(name.lower() for name in (*calendar.month_name[1:], *calendar.day_name))
"""Words that are capitalised for another reason than being a name, and say nothing of a text's topic."""

_COMPANY_WORDS = frozenset(["AG", "Co", "Company", "Corp", "GmbH", "Group", "Inc", "Labs", "LLC", "Ltd", "University"])
_COMPANY_PREPOSITION = re.compile(r"\b(?:at|from|joined|of)\s+(?:the\s+)?$")
_PLACE_PREPOSITION = re.compile(r"\b(?:in|near|to)\s+$")

_OPERAND = r"[(\s-]{0,9}\d{1,15}(?:\.\d{1,15})?[)\s]{0,9}"
_ARITHMETIC = re.compile(rf"{_OPERAND}(?:(?:\*\*|//|[-+*/%]){_OPERAND}){{1,20}}")
_TIMES = re.compile(r"(?<=\d)\s*[x\u00d7]\s*(?=[\d(])")


def emails(text: str) -> list[str]:
    """E-mail addresses."""
    return _unique(_EMAIL.findall(text))


def urls(text: str) -> list[str]:
    """Web addresses."""
    return _unique(_URL.findall(text))


def phones(text: str) -> list[str]:
    """Telephone numbers: groups of at least seven digits together."""
    found = _PHONE.findall(_without_addresses(_DATE.sub(";", text)))
    return _unique(number for number in found if sum(map(str.isdigit, number)) >= 7)


def numbers(text: str) -> list[str]:
    """Numbers as they are written (`1,200.50`), without those that belong to an address or a date."""
    return _unique(_NUMBER.findall(_without_addresses(_DATE.sub(";", text))))


def dates(text: str) -> list[str]:
    """Dates as they are written: ISO, `31.12.2026`, `31 December 2026`, `December 31, 2026`."""
    return _unique(_DATE.findall(text))


def iso_dates(text: str) -> list[str]:
    """The valid ones of `dates`, in ISO format."""
    return [day.isoformat() for found in dates(text) if (day := _as_date(found)) is not None]


def proper_names(text: str) -> list[str]:
    """Runs of capitalised words, without the words that only open a sentence."""
    return _unique(name for _, name in _name_runs(text))


def companies(text: str) -> list[str]:
    """Names with a company's word in them (`Ltd`), and those after `at`, `from`, `of` or `joined`."""
    return _unique(name for start, name in _name_runs(text) if _is_company(text, start, name))


def places(text: str) -> list[str]:
    """Names after `in`, `near` or `to`."""
    return _unique(
        name for start, name in _name_runs(text) if _PLACE_PREPOSITION.search(text, max(0, start - 20), start)
    )


def people(text: str) -> list[str]:
    """The other names, those of several words first: `Ada Lovelace` is more of a person than `Analytics`."""
    others = {*companies(text), *places(text)}
    return sorted((name for name in proper_names(text) if name not in others), key=lambda name: " " not in name)


def topics(text: str) -> list[str]:
    """At most five words that may say what the text is about: long ones first, then names."""
    words = [word for word in _WORD.findall(_without_addresses(text)) if word.islower() and len(word) > 4]
    telling = [word for word in words if word not in _STOP_WORDS]
    return _unique([*telling, *proper_names(text)])[:5]


def arithmetic(text: str) -> str | None:
    """The first arithmetic expression: `What is 6 x 7?` has `6 * 7`. None without one."""
    plain = _TIMES.sub(" * ", _without_addresses(_DATE.sub(";", text)).replace("÷", "/").replace("^", "**"))
    candidates = (match.group().strip() for match in _ARITHMETIC.finditer(plain))
    return next((expression for found in candidates for expression in _repaired(found)), None)


Finder = Callable[[str], list[str]]

_FINDERS: dict[Finder, frozenset[str]] = {
    emails: frozenset(["email", "mail"]),
    urls: frozenset(["url", "link", "website", "homepage"]),
    phones: frozenset(["phone", "telephone", "mobile"]),
    dates: frozenset(["date", "day", "deadline", "birthday"]),
    numbers: frozenset(["amount", "price", "cost", "total", "sum", "number", "quantity", "count", "age", "year"]),
    companies: frozenset(["company", "organisation", "organization", "org", "employer", "vendor", "supplier"]),
    places: frozenset(["city", "place", "location", "country", "town"]),
    people: frozenset(["name", "person", "people", "author", "customer", "client", "speaker"]),
    topics: frozenset(["topic", "keyword", "tag", "theme"]),
    proper_names: frozenset(["entity"]),
}
"""What to look for by the words of a field's name. The order decides: a `company_name` is a company."""


def finder(field: str) -> Finder | None:
    """What to look for in order to fill the field of this name; None where the name suggests nothing."""
    words = {_singular(word) for word in field.lower().split("_")}
    return next((find for find, names in _FINDERS.items() if names & words), None)


def as_number(written: str) -> float:
    """The value of one of `numbers`."""
    return float(written.replace(",", ""))


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word.removesuffix("ies") + "y"
    return word.removesuffix("s")


def _unique(found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(found))


def _without_addresses(text: str) -> str:
    return _URL.sub(";", _EMAIL.sub(";", text))


def _as_date(written: str) -> date | None:
    for pattern in _DATE_FORMATS:
        try:
            return datetime.strptime(written, pattern).date()
        except ValueError:
            continue
    return None


def _name_runs(text: str) -> Iterable[tuple[int, str]]:
    """Every capitalised run with its place, its opening and closing common words stripped."""
    # Blanks of the same length, so that places stay those of `text`.
    blanked = _URL.sub(_blank, _EMAIL.sub(_blank, text))
    for match in _NAME_RUN.finditer(blanked):
        words = list(re.finditer(r"[^\s&]+", match.group()))
        while words and words[0].group().lower() in _STOP_WORDS:
            words.pop(0)
        while words and words[-1].group().lower() in _STOP_WORDS:
            words.pop()
        if words:
            start, end = words[0].start(), words[-1].end()
            yield match.start() + start, match.group()[start:end].removesuffix("'s").removesuffix("\u2019s")


def _blank(match: re.Match[str]) -> str:
    return ";" * len(match.group())


def _is_company(text: str, start: int, name: str) -> bool:
    return bool(_COMPANY_WORDS & set(name.split()) or _COMPANY_PREPOSITION.search(text, max(0, start - 20), start))


def _repaired(found: str) -> list[str]:
    """`found`, without a parenthesis too many at either end; empty when it is no expression of Python's."""
    for candidate in (found, found.rstrip(") "), found.lstrip("( ")):
        try:
            ast.parse(candidate, mode="eval")
        except (SyntaxError, ValueError):
            continue
        return [candidate]
    return []
