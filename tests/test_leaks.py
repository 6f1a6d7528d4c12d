"""The watch over what tests leave behind sees what it should."""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.leaks import Surroundings

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
#: A process whose child outlives the question.
PARENT = [sys.executable, "-c", f"import subprocess; subprocess.run({SLEEP!r})"]


def test_a_process_is_seen() -> None:
    before = Surroundings()
    with subprocess.Popen(SLEEP) as process:
        assert before.leaks() == [f"process {process.pid}: {' '.join(SLEEP)}"]
        process.kill()
        process.wait()
    assert before.leaks() == []


def test_a_child_of_what_may_stay_may_stay() -> None:
    before = Surroundings()
    with subprocess.Popen(PARENT, start_new_session=True, stdin=subprocess.DEVNULL) as process:
        before.add(Surroundings(set(before.processes)))
        assert before.leaks() == []
        for child in Surroundings().processes - {*before.processes}:
            child.kill()
        process.kill()
        process.wait()


def test_a_thread_is_seen() -> None:
    before, ending = Surroundings(), threading.Event()
    thread = threading.Thread(target=ending.wait, name="left")
    thread.start()
    try:
        assert before.leaks() == ["thread left"]
    finally:
        ending.set()
        thread.join()
    assert before.leaks() == []


def test_a_file_is_seen() -> None:
    before = Surroundings()
    folder = Path(tempfile.mkdtemp(prefix="fewstep-left-"))
    assert before.leaks() == [f"file {folder}"]
    folder.rmdir()
    assert before.leaks() == []
