"""Independent calls on several threads of one process, each with its share of the processor.

Two passes side by side on one core each are faster than one pass on two: small operations, and
what Python does between them, leave a second core idle.  Knows threads; knows nothing of training.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")

# Python runs in one thread at a time, so that beyond a few workers they would wait for each other.
MOST = 4


def workers(calls: int) -> int:
    """Return how many workers share the processor for so many calls.

    Depends on torch's number of threads alone, as the bits of a result then do.
    """
    return max(1, min(calls, torch.get_num_threads(), MOST))


def side_by_side(
    calls: Iterable[Callable[[], T]], count: int, stop: Callable[[], None] = lambda: None
) -> Generator[T]:
    """Make calls on ``count`` threads and yield what they return, in order.

    Calls are taken as they are needed: one waits beside those that are made.  Calls must not depend
    on each other; what binds something to a model binds it for its own thread.

    Args:
        calls: what is to be called.
        count: threads; with one, calls are made here, with all of torch's threads.
        stop: called if the caller gives up or a call failed, to let those still made end early.

    Raises:
        Exception: what a call raised, as soon as it did.
    """
    if count == 1:
        yield from (call() for call in calls)
        return
    threads = torch.get_num_threads()
    share = threads // count
    pool = ThreadPoolExecutor(count, "pass", torch.set_num_threads, (share,))
    waiting: deque[Future[T]] = deque()
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > count:
                yield first_of(waiting)
        while waiting:
            yield first_of(waiting)
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # torch keeps the number last set for threads to come


def first_of(waiting: deque[Future[T]]) -> T:
    """Take the first away and return what it made; until then look whether any failed."""
    while not waiting[0].done():
        done, _ = wait([one for one in waiting if not one.done()], return_when=FIRST_COMPLETED)
        for one in done:
            one.result()
    return waiting.popleft().result()
