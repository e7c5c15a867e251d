import pytest

from graphkit.report.wording import bytes_text, printable, seconds_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_951, "1.0 MB"), (12_400_000, "12.4 MB"),
     (1_500_000_000, "1.5 GB"), (5_000_000_000_000, "5000.0 GB")],
)  # fmt: skip
def test_bytes_are_decimal_and_short(size, text):
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (12.34, "12.3 s"), (99.9, "99.9 s"), (99.96, "1 min 39 s"), (125, "2 min 05 s")],
)
def test_long_times_are_given_in_minutes(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\rb", r"a\rb"),
        ("‮evil", r"\u202eevil"),
        ("\x9b2J", r"\x9b2J"),
        ("\udc80", r"\udc80"),
    ],
)
def test_control_characters_are_spelled_out(hostile, shown):
    assert printable(hostile) == shown


def test_names_of_all_scripts_lines_and_tabs_stay():
    assert printable("größe 大小\tx\ny") == "größe 大小\tx\ny"
