"""Signals: what is asked, what is dropped, and the second one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protenix_multiseed.errors import Dropped
from protenix_multiseed.stop import Stop


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)


def test_the_first_signal_asks_and_nothing_new_begins():
    told = []
    with Stop(60, lambda name, grace: told.append((name, grace))) as stop:
        items = stop.each(range(5))
        assert next(items) == 0
        send(signal.SIGTERM)
        assert list(items) == []
    assert (stop.asked, stop.exit_code, told) == (True, 143, [("SIGTERM", 60)])


def test_work_in_hand_may_finish_within_its_time():
    with Stop(60, lambda *_: None) as stop:
        send()

        def results():
            yield 1
            yield 2

        assert list(stop.rest(results())) == [1, 2]
    assert stop.exit_code == 130


def test_work_in_hand_is_dropped_when_its_time_is_up():
    with Stop(0.05, lambda *_: None) as stop:

        def results():
            yield 1
            send()
            time.sleep(30)
            yield 2

        start = time.monotonic()
        assert list(stop.rest(results())) == [1]
        assert time.monotonic() - start < 5


def test_what_may_not_be_dropped_is_not():
    with Stop(0.02, lambda *_: None) as stop:
        send()
        time.sleep(0.1)  # such as writing
        with pytest.raises(Dropped), stop.droppable():
            pytest.fail("its time was up before it began")


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with Stop(1, lambda *_: None):
        send()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before


def test_the_second_signal_ends_the_process_and_its_children():
    code = (
        "import subprocess, sys, time\n"
        "from protenix_multiseed.stop import Stop\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "with Stop(60, lambda name, _: print(name, flush=True)):\n"
        "    print(child.pid, flush=True)\n"
        "    end = time.monotonic() + 60\n"
        "    while time.monotonic() < end: time.sleep(0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "SIGINT\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    process.stdout.close()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    state = Path(f"/proc/{child}/stat").read_text().split()[2]
    assert state == "Z", "the child lives on"


def test_everything_finished_comes_out_past_the_deadline():
    """Three seeds were finished when the fourth was dropped: the deadline must not swallow two of them."""
    with Stop(0.05, lambda *_: None) as stop:

        def results():
            finished = []
            try:
                finished += [1, 2, 3]
                send()
                time.sleep(30)
            except Dropped:
                yield from finished

        assert list(stop.rest(results())) == [1, 2, 3]
