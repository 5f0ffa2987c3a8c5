"""Numbers of a text: units, comparisons, and when two say the same."""

import pytest

from datasets_scripts.cqa.measures import QUANTITY, agrees, measure_of, numerals_as_digits


def measure(text):
    return measure_of(next(QUANTITY.finditer(numerals_as_digits(text))))


@pytest.mark.parametrize(
    ("text", "low", "high", "dimension", "comparison"),
    [
        ("120 ms or more", 120, 120, "ms", "at least"),
        ("at least 0.12 s", 120, 120, "ms", "at least"),
        ("more than three small squares", 3, 3, "square", "at least"),
        ("two large squares", 10, 10, "square", "is"),
        ("does not exceed 450 ms".replace("does ", ""), 450, 450, "ms", "at most"),
        ("60 to 100 beats per minute", 60, 100, "bpm", "is"),
        ("120-200 milliseconds", 120, 200, "ms", "is"),
        ("between -45 and -90 degrees", -90, -45, "degrees", "is"),
        ("under 0.5 mv", 0.5, 0.5, "mV", "at most"),
        ("150 microvolts", 0.15, 0.15, "mV", "is"),
    ],
)
def test_numbers_are_read_with_unit_and_comparison(text, low, high, dimension, comparison):
    read = measure(text)
    assert (read.low, read.high, read.dimension, read.comparison) == pytest.approx((low, high, dimension, comparison))


@pytest.mark.parametrize(
    ("claimed", "known", "same"),
    [
        ("0.12 s or more", "at least 120 ms", True),
        ("three small squares", "120 ms", True),
        ("1 mm", "at least 0.1 mv", True),
        ("2 mm", "0.1 mv", False),
        ("below 120 ms", "120 ms or more", False),
        ("120 ms", "120 ms or more", True),
        ("above 250 bpm", "150 to 250 bpm", False),
        ("above 150 bpm", "150 to 250 bpm", True),
        ("150 to 250 bpm", "150 to 250 bpm", True),
        ("120 ms", "120 bpm", False),
        ("-90 to 180 degrees", "-90 to -180 degrees", True),
    ],
)
def test_two_numbers_say_the_same(claimed, known, same):
    assert agrees(measure(claimed), measure(known)) == same


def test_second_is_an_order_unless_it_counts():
    assert numerals_as_digits("a second r wave after two seconds") == "a second r wave after 2 seconds"
