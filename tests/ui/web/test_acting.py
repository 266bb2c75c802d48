"""What is said of an action where the page is drawn anew; that it stays, only a browser shows."""

from streamlit.testing.v1 import AppTest


def page() -> None:
    import streamlit as st

    from federation.errors import ConfigError
    from ui.web.shell import acting, say_what_was_done

    def fail() -> None:
        raise ConfigError("it is gone")

    say_what_was_done()
    if st.button("Do", key="do"):
        acting(lambda: None, "it is done", anew=True)
    if st.button("Fail", key="fail"):
        acting(fail, "it is done", anew=True)


def test_what_was_done_or_why_not_is_said_once_after_the_page_is_drawn_anew() -> None:
    app = AppTest.from_function(page).run()
    for key, words in (("do", "it is done"), ("fail", "it is gone")):
        app.button(key=key).click().run()
        assert [toast.value for toast in app.toast] == [words]
    app.run()
    assert not len(app.toast)
