"""A login is asked for exactly where one is configured, and nothing is shown before it."""

from pathlib import Path

import pytest
import streamlit as st
from streamlit.errors import StreamlitAuthError
from streamlit.testing.v1 import AppTest

from tests.ui.web.conftest import APP, words
from tests.ui.web.recorded import record
from ui.web import login
from ui.web.server import settings

AUTH = {
    "redirect_uri": "https://fed.example.org/oauth2callback",
    "cookie_secret": "x" * 40,
    "client_id": "fedpilot",
    "client_secret": "y",
    "server_metadata_url": "https://id.example.org/.well-known/openid-configuration",
}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    record(tmp_path / "secret-run")
    monkeypatch.setenv("FEDPILOT_RUNS", str(tmp_path))
    return AppTest.from_file(str(APP), default_timeout=60)


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_without_one_configured_nobody_is_asked(app: AppTest) -> None:
    app.run()
    assert not app.exception and len(app.dataframe) == 1
    assert not {"Log in", "Log out"} & set(labels(app))


@pytest.mark.parametrize("page", ["", "live", "studies"])
def test_whoever_is_not_logged_in_sees_one_button(app: AppTest, page: str) -> None:
    app.secrets["auth"] = AUTH
    app.user = {"is_logged_in": False}
    if page:
        app.switch_page(str(APP.parent / "app_pages" / f"{page}.py"))
    app.run()
    assert not app.exception
    assert labels(app) == ["Log in"]
    assert not app.dataframe and "secret-run" not in words(app)


def test_whoever_is_logged_in_sees_runs_and_the_way_out(app: AppTest) -> None:
    app.secrets["auth"] = AUTH
    app.user = {"is_logged_in": True, "email": "a@example.org"}
    app.run()
    assert not app.exception and len(app.dataframe) == 1
    assert "Log out" in labels(app) and "Log in" not in labels(app)


def test_a_login_that_cannot_be_is_said_in_a_line(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise StreamlitAuthError("Authlib is missing.\nInstall it.")

    monkeypatch.setattr(st, "login", refuse)
    app.secrets["auth"] = AUTH
    app.user = {"is_logged_in": False}
    app.run()
    app.button[0].click().run()
    assert not app.exception and [e.value for e in app.error] == ["Authlib is missing."]


def test_secrets_that_cannot_be_read_let_nobody_in(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "unreadable", lambda: "secrets.toml")
    app.run()
    assert "cannot be read" in app.error[0].value and not app.dataframe


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of secrets that stands where the interface is started."""
    file = tmp_path / "secrets.toml"
    monkeypatch.setattr(st, "get_option", lambda name: [str(file)])
    monkeypatch.setattr(st, "secrets", Secrets(file))
    return file


class Secrets(dict):
    """Secrets of one file, read as Streamlit reads them."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def load_if_toml_exists(self) -> bool:
        import tomllib

        try:
            self.update(tomllib.loads(self.file.read_text()))
        except (OSError, ValueError):
            return False
        return True


def test_a_torn_file_is_no_missing_one(secrets: Path) -> None:
    assert (login.unreadable(), login.public_hosts()) == ("", [])
    secrets.write_text("[auth")
    assert (login.unreadable(), login.public_hosts()) == (str(secrets), [])
    secrets.write_text(f'[auth]\nredirect_uri = "{AUTH["redirect_uri"]}"')
    assert (login.unreadable(), login.public_hosts()) == ("", ["fed.example.org"])


def test_only_the_host_that_logins_lead_back_to_is_allowed_besides_loopback() -> None:
    found = settings(8501, ["fed.example.org"])
    assert found["server.allowedHosts"] == ["localhost", "127.0.0.1", "fed.example.org"]
    assert found["server.address"] == "127.0.0.1"
