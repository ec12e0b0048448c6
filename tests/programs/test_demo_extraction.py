"""What the demo engine finds in a text."""

from __future__ import annotations

import pytest

from dspyserve.programs import demo_extraction
from dspyserve.programs.demo_extraction import arithmetic, as_number, finder

TEXT = (
    "Invoice 4711 of 3 March 2026 from Globex Corp. Hello Mr Smith, please meet Ada Lovelace's team in Zurich on "
    "2026-04-31 or 1.5.2026; call +41 44 123 45 67, write to ada@globex.example or see https://globex.example/pay?x=1."
)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("emails", ["ada@globex.example"]),
        ("urls", ["https://globex.example/pay?x=1"]),
        ("phones", ["+41 44 123 45 67"]),
        ("dates", ["3 March 2026", "2026-04-31", "1.5.2026"]),
        ("iso_dates", ["2026-03-03", "2026-05-01"]),
        ("companies", ["Globex Corp"]),
        ("places", ["Zurich"]),
        ("people", ["Mr Smith", "Ada Lovelace", "Invoice"]),
        ("proper_names", ["Invoice", "Globex Corp", "Mr Smith", "Ada Lovelace", "Zurich"]),
        ("topics", ["Invoice", "Globex Corp", "Mr Smith", "Ada Lovelace", "Zurich"]),
    ],
)
def test_finds_in_order_and_without_repeats(kind: str, found: list[str]) -> None:
    assert getattr(demo_extraction, kind)(f"{TEXT} {TEXT}") == found


def test_numbers_are_not_those_of_dates_and_addresses() -> None:
    written = demo_extraction.numbers("On 2026-01-31 a1@b2.example paid -1,200.50, then 7 and 3.5% of v2, not 1.2.3.")

    assert [as_number(number) for number in written] == [-1200.5, 7.0, 3.5]


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("email_address", "emails"),
        ("phone_number", "phones"),
        ("company_name", "companies"),
        ("customer_name", "people"),
        ("cities", "places"),
        ("keywords", "topics"),
        ("invoice_date", "dates"),
        ("total", "numbers"),
    ],
)
def test_the_name_of_a_field_tells_what_to_look_for(field: str, wanted: str) -> None:
    assert finder(field) is getattr(demo_extraction, wanted)


def test_other_names_tell_nothing() -> None:
    assert finder("answer") is None


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("What is 6 * 7?", "6 * 7"),
        ("6x7, quickly", "6 * 7"),
        ("Compute (2 + 3) * 4 - 1.", "(2 + 3) * 4 - 1"),
        ("a sum (1 + 2), please", "(1 + 2)"),
        ("a sum (it is 1 + 2), please", "1 + 2"),
        ("2^10 is large", "2**10"),
        ("On 2026-01-02 it was 8 ÷ 2", "8 / 2"),
        ("On 2026-01-02", None),
        ("Seven times six", None),
        ("7", None),
    ],
)
def test_arithmetic_is_the_first_expression(text: str, expression: str | None) -> None:
    assert arithmetic(text) == expression
