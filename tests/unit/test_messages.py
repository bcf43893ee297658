"""Messages break between words on a terminal, and are one line elsewhere."""

import io
import sys

import pytest

from protenix_multiseed.commands.console import make_console
from protenix_multiseed.commands.message import say

PATH = "/a/folder/with-a-long-name/which/must/stay-whole.json[3]"
TEXT = f"error: {PATH} 'kras': sequences[0]: the letter is not one of a protein's sequence"


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


def by_say(text):
    say(text, err=True)


def by_console(text):
    make_console(sys.stderr).print(text, soft_wrap=True, markup=False)


@pytest.mark.parametrize("show", [by_say, by_console])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_lines_break_between_words_on_a_terminal_only(show, is_terminal, monkeypatch):
    stream = Stream(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    show(TEXT)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert " ".join(lines) == TEXT
    if is_terminal:
        assert PATH in lines
        assert len(lines) > 3
        assert all(len(line) <= 40 for line in lines if line != PATH)
    else:
        assert lines == [TEXT]


def test_control_characters_are_shown(capsys):
    say("a\x1b[31mb")
    assert capsys.readouterr().out == "a\\x1b[31mb\n"


def test_the_lines_after_a_break_are_indented_and_a_long_word_stays_alone_and_whole(monkeypatch):
    """Regression: the lines of doctor began in column 1, between details that begin in column 7."""
    stream = Stream(is_terminal=True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    address = f"https://host/{'x' * 60}"
    text = f"ok    it: a sentence that is rather long\n      the address is {address}"
    make_console(stream, indent=6).print(text, soft_wrap=True)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines == [
        "ok    it: a sentence that is rather long", "      the address is", f"      {address}"
    ]  # fmt: skip
