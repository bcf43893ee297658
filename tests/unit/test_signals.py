"""The first signal asks a run to stop, the end of the grace period stops its work, a second signal ends the process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from protenix_multiseed.run import signals as module
from protenix_multiseed.run.signals import Signals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.01)


def test_the_first_signal_asks_the_run_to_stop_and_is_reported():
    events = []
    with Signals(60, events.append) as signals:
        assert (signals.is_asked, signals.time_is_up) == (False, False)
        send(signal.SIGTERM)
        assert (signals.is_asked, signals.exit_code, signals.time_is_up) == (True, 143, False)
        wait_for(lambda: events)
    assert [(event.signal, event.grace) for event in events] == [("SIGTERM", 60)]


def test_a_follower_gets_the_event_too():
    events, more = [], []
    with Signals(60, events.append) as signals:
        signals.follow(more.append)
        send()
        wait_for(lambda: more)
    assert more == events


def test_time_is_up_after_the_grace_period():
    with Signals(0.05, lambda event: None) as signals:
        send()
        assert signals.exit_code == 130
        wait_for(lambda: signals.time_is_up)


def test_a_pause_ends_when_the_run_is_asked_to_stop():
    with Signals(60, lambda event: None) as signals:
        assert signals.pause(0.01)
        timer = threading.Timer(0.2, send)
        timer.start()
        start = time.monotonic()
        assert not signals.pause(60)
        assert time.monotonic() - start < 30
        timer.join()


def test_a_handler_prints_nothing(capfd):
    """A handler may have interrupted a print, and Python forbids another print inside it."""
    threads = []
    with Signals(60, lambda event: threads.append(threading.current_thread())) as signals:
        send()
        assert signals.is_asked
        wait_for(lambda: threads)
    assert threads[0] is not threading.main_thread()
    assert capfd.readouterr() == ("", "")


def test_a_stuck_watcher_does_not_delay_the_stop(monkeypatch):
    monkeypatch.setattr(module, "_LAST_WORDS_SECONDS", 0.1)
    stuck = threading.Event()
    with Signals(0.05, lambda event: stuck.wait(60)) as signals:
        send()
        wait_for(lambda: signals.time_is_up)
    stuck.set()


def test_a_signal_right_before_the_end_is_told():
    """Regression: the process ended before the thread had written the line to the log."""
    events = []
    for _ in range(20):
        with Signals(60, events.append):
            send()
    assert len(events) == 20


BEFORE_THE_RUN = """
import importlib, sys, time
from protenix_multiseed.run.signals import Signals
with Signals(60):
    print("ready", flush=True)
    while True:
        try:
            time.sleep(0.1)
        except:
            pass
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_before_the_run_ends_the_process(number):
    """Whatever a library that is being imported catches."""
    with subprocess.Popen([sys.executable, "-c", BEFORE_THE_RUN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait() == 128 + number


def test_a_signal_after_the_run_has_no_effect():
    events = []
    with Signals(60) as signals:
        with signals.begun(events.append):
            pass
        send()
        assert not events


MASK = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"


def test_processes_start_with_the_signals_blocked_and_the_run_still_gets_them():
    """Regression: a worker that was interrupted while it imported modules printed a traceback."""
    events = []
    with Signals(60, events.append) as signals:
        signals.shield_workers()
        mask = subprocess.run([sys.executable, "-c", MASK], check=True, capture_output=True, text=True).stdout
        assert mask.count("SIGINT") == mask.count("SIGTERM") == 1
        send()
        wait_for(lambda: signals.is_asked)
    assert len(events) == 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(NUMBERS) == set()


def test_signal_handlers_are_restored():
    before = [signal.getsignal(number) for number in NUMBERS]
    with Signals(1, lambda event: None):
        send()
    assert [signal.getsignal(number) for number in NUMBERS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_run_and_its_processes_outlive_their_terminal():
    """Regression: closing a window or a connection killed the run, though its documentation said otherwise."""
    code = (
        "import os, signal, subprocess, sys\n"
        "from protenix_multiseed.run.signals import Signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # nohup ignores it
        "with Signals(60, lambda event: print(event.signal, flush=True)):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import sys; print(1, flush=True); sys.stdin.read()'],\n"
        "                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "    child.stdout.readline()\n"
        "    os.kill(child.pid, signal.SIGHUP)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    child.stdin.close()\n"
        "    code = child.wait(60)\n"
        "print(code, signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert made.stdout == "0 True\n", made.stderr


def test_no_handler_is_installed_outside_the_main_thread():
    found = []

    def run():
        with Signals(1, lambda event: None) as signals:
            found.append(signals.is_asked)

    before = [signal.getsignal(number) for number in NUMBERS]
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert found == [False]
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_the_second_signal_ends_the_process_and_its_children():
    code = (
        "import subprocess, sys, time\n"
        "from protenix_multiseed.run.signals import Signals\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "with Signals(60, lambda event: print(event.signal, flush=True)):\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(120)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "SIGINT\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    state = Path(f"/proc/{child}/stat").read_text().split()[2]
    assert state == "Z", "the child still runs"


TWICE = """
import os, signal, sys
from protenix_multiseed.run.signals import Signals
if sys.argv[1] == "full":  # nobody reads the pipe
    os.set_blocking(2, False)
    try:
        while True:
            os.write(2, b"x")
    except BlockingIOError:
        os.set_blocking(2, True)
if sys.argv[1] == "no thread":  # the machine has no room for one more
    from protenix_multiseed.run import signals
    class Refused(signals.threading.Thread):
        def start(self):
            if self.name not in ("signals", "stopping"):
                raise RuntimeError("can't start new thread")
            super().start()
    signals.threading.Thread = Refused
with Signals(60, lambda event: print(event.signal, flush=True)):
    print("ready", flush=True)
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("pipe", ["free", "full", "no thread"])
def test_the_second_signal_says_that_the_run_is_stopped_and_waits_for_no_reader(pipe):
    """Regression: the process ended without a word."""
    command = [sys.executable, "-c", TWICE, pipe]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in ("ready\n", "SIGINT\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = process.stderr.read()
    assert (said == "stopped at once; run the same command again to continue\n") == (pipe == "free")


def test_the_last_line_is_below_the_bars_of_a_terminal():
    """The bars hide the cursor, and it stands at the end of their last line."""
    main, other = os.openpty()
    command = [sys.executable, "-c", TWICE, "free"]
    with subprocess.Popen(command, stdout=other, stderr=other) as process:
        os.close(other)
        shown = b""
        for word in (b"ready", b"SIGINT", b"continue"):
            while word not in shown:
                shown += os.read(main, 1024)
            if word != b"continue":
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    os.close(main)
    assert b"\x1b[?25h\r\nstopped at once" in shown
