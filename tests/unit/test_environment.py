"""What is heard of upstream while it works."""

import importlib.util
import logging
import warnings
from pathlib import Path

from protenix_multiseed.upstream.environment import overheard

PROTENIX = Path(importlib.util.find_spec("protenix").origin).parent


def test_only_warnings_of_upstreams_own_files_are_heard(tmp_path):
    """An installation may lie in a folder that has upstream's name."""
    own, other = PROTENIX / "data" / "x.py", tmp_path / "protenix" / "lib" / "biotite" / "x.py"
    with overheard(()) as heard:
        for file in (own, other):
            warnings.warn_explicit(f"from {file}", UserWarning, str(file), 1)
        logging.getLogger("protenix.data").warning("said")
    assert heard == ["said", f"from {own}"]


def test_a_block_inside_another_one_does_not_take_what_is_logged_from_it():
    with overheard(()) as outer:
        with overheard(()) as inner:
            logging.getLogger("protenix.data").warning("said")
        assert inner == ["said"]
    assert outer == ["said"]
