import pytest
from hypothesis import given
from hypothesis import strategies as st

from protenix_multiseed.errors import ConfigError
from protenix_multiseed.inputs.seeds import MAX_SEED, format_seeds, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("1-5", (1, 2, 3, 4, 5)),
        ("1,7,20-22", (1, 7, 20, 21, 22)),
        (" 3 , 1 ", (3, 1)),
        ("0", (0,)),
        (f"{MAX_SEED}", (MAX_SEED,)),
        ("5-5", (5,)),
    ],
)
def test_seeds_and_ranges_are_parsed_in_order(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither a seed nor a range"),
        ("1,,2", "neither a seed nor a range"),
        ("one", "neither a seed nor a range"),
        ("-1", "neither a seed nor a range"),
        ("1-", "neither a seed nor a range"),
        ("٣", "neither a seed nor a range"),
        ("5-1", "write 1-5"),
        ("1,2,1", "seed 1 is given twice"),
        ("1-3,2", "seed 2 is given twice"),
        (str(MAX_SEED + 1), "outside 0..4294967295"),
        ("0-999999999", "split them over several runs"),
    ],
)
def test_invalid_seeds_are_refused(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_seeds(text)


@given(st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=50, unique=True))
def test_parse_seeds_reverses_format_seeds(seeds):
    assert parse_seeds(format_seeds(seeds)) == tuple(seeds)


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused(text):
    try:
        seeds = parse_seeds(text)
    except ConfigError:
        return
    assert len(set(seeds)) == len(seeds)
