"""Whoever waits in vain is told what is there instead."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser

from tests.ui.browser.served import Eyes, looking

pytestmark = pytest.mark.browser
PAGE = '<div data-testid="stApp" data-test-script-state="running">checking</div>'
WAITS: dict[str, Callable[[Eyes], object]] = {
    "'checking' is still there": lambda eyes: eyes.gone("checking", 0.2),
    "the script goes on": lambda eyes: eyes.settled(0.2),
    "no 'Verdict'": lambda eyes: eyes.until("Verdict", 0.2),
    "no 'button Start'": lambda eyes: eyes.button("Start", 0.2),
    "no tab 'Cohort'": lambda eyes: eyes.tab("Cohort"),
    "'human' of 'Policy' cannot be chosen": lambda eyes: eyes.choose("Policy", "human"),
}


@pytest.mark.parametrize("problem", WAITS)
def test_a_wait_in_vain_says_what_is_there(browser: Browser, problem: str) -> None:
    eyes = looking(browser, "http://127.0.0.1")
    eyes.page.set_content(PAGE)
    eyes.page.set_default_timeout(200)
    with pytest.raises(AssertionError) as told:
        WAITS[problem](eyes)
    eyes.page.context.close()
    assert str(told.value).startswith(problem)
    assert "script ['running']" in str(told.value) and str(told.value).endswith("checking")
