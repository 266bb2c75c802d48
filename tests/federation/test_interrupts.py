import signal
import threading

import pytest

from federation.runs.interrupts import uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(number: int):
    seen: list[str] = []
    before = signal.signal(number, lambda *_: seen.append("handled"))
    try:
        with uninterrupted():
            signal.raise_signal(number)
            seen.append("done")
        assert seen == ["done", "handled"]
        signal.raise_signal(number)
        assert seen == ["done", "handled", "handled"]
    finally:
        signal.signal(number, before)


def test_ctrl_c_reaches_the_caller_afterwards():
    done = False
    # A process started in the background ignores Ctrl-C from birth; tests may run in one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done = True
    finally:
        signal.signal(signal.SIGINT, before)
    assert done


def test_other_threads_may_use_it():
    done: list[bool] = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
