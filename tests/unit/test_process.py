"""Standard output that is closed, stuck or full, the encoding of the process, and signals at its end."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest
from support import cases

from protenix_multiseed.process import Output

PREFIX = f"import sys; sys.path.insert(0, {str(cases.REPOSITORY)!r})\nfrom protenix_multiseed.process import *\n"


@pytest.fixture
def pipe():
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            assert end == ends[0]  # closed by the test


def test_a_reader_that_stops_does_not_hold_up_a_print_and_gets_the_text_later(pipe):
    output, text = Output(pipe[1], "utf-8"), "".join(f"line {number}\n" for number in range(2000))
    output.write(text)  # more than the pipe takes
    output.wait(lambda: True)  # gives up, since nothing is read
    read = bytearray()

    def take():
        while len(read) < len(text) - 100:  # a read may return less than it asks for; the pipe takes the rest
            read.extend(os.read(pipe[0], 100))

    reader = threading.Thread(target=take)
    reader.start()
    output.finish()
    output.write("too late")
    reader.join()
    assert text.startswith(read.decode())
    assert len(read) > 4096


def test_a_reader_that_ends_does_not_stop_the_program(pipe):
    output = Output(pipe[1], "utf-8")
    os.close(pipe[0])
    output.write("text")
    output.finish()
    assert output.problem.errno == errno.EPIPE
    output.write("more")


def test_letters_that_the_encoding_lacks_are_escaped(pipe):
    output = Output(pipe[1], "ascii")
    print("Größe \udc80 Å", file=output)
    output.finish()
    assert os.read(pipe[0], 100) == b"Gr\\xf6\\xdfe \\udc80 \\xc5\n"


def run(code, **more):
    return subprocess.run([sys.executable, "-c", PREFIX + code], check=False, text=True, stderr=subprocess.PIPE, **more)


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_kept_if_streams_are_closed(code, tmp_path):
    """Regression: the next file that was opened became standard output, and prints went into it."""
    script = f"with own_process():\n file = open('file', 'w')\n print('text')\n raise SystemExit({code})"
    for closed in (">&-", "<&- >&-", "<&- >&- 2>&-"):
        command = f'exec "$0" -c "$1" {closed}'
        done = subprocess.run(["sh", "-c", command, sys.executable, PREFIX + script], check=False, cwd=tmp_path)
        assert done.returncode == code
        assert (tmp_path / "file").read_text() == ""


def test_output_that_is_lost_is_an_error():
    with open("/dev/full", "wb") as full:
        done = run("with own_process():\n print('text')", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"


def test_a_signal_after_the_work_does_not_change_the_exit_code():
    """A module of a library may take long to be removed at the end of a process."""
    late = "import os, signal\nclass Late:\n def __del__(self, kill=os.kill, pid=os.getpid()):\n  kill(pid, 15)\n"
    for place in ("import atexit; atexit.register(Late().__del__)", "sys.late = Late()"):
        done = run(f"{late}{place}\nwith own_process():\n raise SystemExit(5)", stdout=subprocess.DEVNULL)
        assert done.returncode == 5, done.stderr


def test_the_end_of_a_process_does_not_search_for_cycles():
    """The search takes a second with torch."""
    cycle = "import os\nclass Cycle:\n def __del__(self, write=os.write):\n  write(1, b'found')\nsys.late = Cycle()\n"
    script = f"{cycle}sys.late.itself = sys.late\n"
    assert run(script, stdout=subprocess.PIPE).stdout == "found"
    assert run(f"{script}with own_process():\n print('text')", stdout=subprocess.PIPE).stdout == "text\n"


def test_a_signal_ends_the_wait_for_a_reader():
    with subprocess.Popen(
        [sys.executable, "-c", f"{PREFIX}with own_process():\n print('x' * 200_000)\n print('ready', file=sys.stderr)"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(("variables", "is_utf8"), [
    ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, True), ({"LC_ALL": "C.UTF-8"}, False),
])  # fmt: skip
def test_python_starts_again_in_utf8_mode_if_the_locale_has_another_encoding(variables, is_utf8, tmp_path):
    script = (
        "use_utf8()\nopen('\\xf6', 'w').write('\\xf6')\nprint(sys.flags.utf8_mode, sys.argv[1], sys.stdout.encoding)"
    )
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", PREFIX + script, "argument"], check=True, capture_output=True, text=True, cwd=tmp_path,
        env=environment,
    )  # fmt: skip
    assert done.stdout.split() == [str(int(is_utf8)), "argument", "ascii" if is_utf8 else "utf-8"]
    assert (tmp_path / "ö").read_bytes() == "ö".encode()


def test_an_interrupt_reaches_python_after_rdkit_has_embedded_molecules():
    script = (
        "import os, signal\n"
        "from protenix_multiseed.inputs.molecules import without_conformer\n"
        "from protenix_multiseed.upstream.dictionary import EmbeddedDictionary\n"
        "from protenix_multiseed.upstream.molecules import make_molecule\n"
        "without_conformer(['CCO', 'CCN'])\n"
        "make_molecule('GOL', EmbeddedDictionary()['GOL'])\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('lost')\n"
        "    except KeyboardInterrupt:\n"
        "        print('came')\n"
    )
    done = subprocess.run([sys.executable, "-c", PREFIX + script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "came\ncame\n"), done.stderr


CLOSED = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with own_process():
    os.write(1, b"ready")
    sys.stdin.read()
    print(1)
"""


def test_a_terminal_that_is_closed_changes_no_exit_code():
    """Regression: it was 1, though the work was done."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PREFIX + CLOSED],
        stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert os.read(ours, 5) == b"ready"
    os.close(theirs)
    os.close(ours)
    process.stdin.close()
    assert process.wait(60) == 0
