"""A page that follows a run: it looks whether something changed, and is drawn anew if so.

A look draws nothing, so it costs next to nothing however long a run is.  A tab that nobody sees
does not look; it does as soon as it is seen.
"""

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import streamlit as st
from streamlit.components.v2 import component

from federation.errors import FedpilotError

SHARE = 0.05  # of a processor core of the server, that tabs which follow a run take together
DRAWING = 0.02  # of a processor core of the browser, that drawing what is new takes
REST = 6.0  # seconds that it rests after drawing, at most
LONGEST = 20.0  # seconds between looks, however many tabs there are

CLOCK = """
// Asks for a look every so many seconds while the tab is seen, and at once when it is seen again;
// seldom where the browser takes long to draw what is new.
let asked = 0
let drawing = -Infinity // milliseconds since then; what drawing took at first does not count

new PerformanceObserver(tasks => {
  for (const task of tasks.getEntries()) drawing += task.duration
}).observe({ type: "longtask" })

export default function ({ data, parentElement, setTriggerValue }) {
  const ask = () => {
    if (document.hidden) return
    asked = performance.now()
    drawing = 0
    setTriggerValue("look", true)
  }
  const rest = () => Math.min(drawing / data.share, data.most * 1000)
  const tick = () => performance.now() - asked >= rest() && ask()
  const timer = setInterval(tick, data.seconds * 1000)
  document.addEventListener("visibilitychange", ask)
  const stop = () => {
    clearInterval(timer)
    document.removeEventListener("visibilitychange", ask)
  }
  // Nobody stops one that was drawn before; one that was late may be stopped when this one runs.
  parentElement.stop?.()
  parentElement.stop = stop
  return stop
}
"""
clock = component("fedpilot_clock", js=CLOCK)


class Tab:
    """A browser tab; it ends with its session."""


FOLLOWING: WeakKeyDictionary[Tab, float] = WeakKeyDictionary()
"""Tabs that follow a run and are seen -> until when, if they do not look again; steady seconds."""


def follow(seen: Callable[[], object], drawn: object, every: float, began: float) -> None:
    """Draw the page anew once something is not as it was drawn.

    How often a tab looks hangs on what drawing the page costs, here and in the browser.

    Args:
        seen: what the page shows, cheap to tell.
        drawn: the same as it was when drawing began.
        every: seconds between looks, at least.
        began: processor time of this thread when drawing began, seconds.
    """
    now = time.monotonic()
    mine = st.session_state.setdefault("tab", Tab())
    others = sum(until > now for tab, until in list(FOLLOWING.items()) if tab is not mine)
    wait = pause(time.thread_time() - began, 1 + others, every)
    FOLLOWING[mine] = now + 2 * wait

    @st.fragment
    def look() -> None:
        pace = {"seconds": wait, "share": DRAWING, "most": REST}
        asked = clock(key="clock", data=pace, on_look_change=lambda: None)
        if asked.look:
            FOLLOWING[mine] = time.monotonic() + 2 * wait
            if differs(seen, drawn):
                st.rerun()

    look()


def differs(seen: Callable[[], object], drawn: object) -> bool:
    """Tell whether something is not as it was drawn; what is gone is not."""
    try:
        return seen() != drawn
    except FedpilotError:
        return True


def pause(cost: float, tabs: int, every: float) -> float:
    """Return how long a tab waits between looks, so that all of them take :data:`SHARE` at most.

    Args:
        cost: of drawing the page, processor seconds.
        tabs: that follow a run and are seen.
        every: seconds, at least.
    """
    return min(LONGEST, max(every, cost * tabs / SHARE))
