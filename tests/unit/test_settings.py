"""Settings: which source wins, what is said about wrong values, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from execution.settings import Settings, SettingsError

BASE = {"PUBSUB_EMULATOR_HOST": "127.0.0.1:8085", "ADAPTER_ENDPOINTS": "binance,my-okx=okx@sandbox"}


def load(config: Path | None = None, **env: str) -> Settings:
    return Settings.load(config, BASE | env)


def problems(config: Path | None = None, **env: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(config, **env)
    return caught.value.problems


def test_defaults_are_the_documented_ones() -> None:
    settings = load()
    assert (settings.max_retries, settings.port) == (3, 8002)
    assert (settings.signals_topic, settings.signals_subscription) == ("approved-signals", "execution-signals")
    assert (settings.control_topic, settings.control_subscription) == ("execution-control", "execution-control")
    assert (settings.events_topic, settings.dead_letter_topic) == ("order-events", "approved-signals-dead-letter")
    assert (settings.signal_max_age, settings.execution_timeout) == (3600, None)
    assert settings.redis_url is None
    assert settings.data_dir == Path(".execution")
    assert settings.log_level == "INFO"


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("max_retries: 7\nPORT: 9000\n")
    settings = load(file, PORT="9100")
    assert (settings.max_retries, settings.port, settings.shards) == (7, 9100, 32)
    assert settings.origin("port") == "environment"
    assert settings.origin("max_retries") == f"file {file}"
    assert settings.origin("shards") == "default"


def test_toml_is_read_too_and_lists_become_comma_lists(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('adapter_endpoints = ["binance", "kraken@sandbox"]\nexecution_timeout = 12.5\n')
    settings = Settings.load(file, {"GOOGLE_CLOUD_PROJECT": "p"})
    assert settings.adapter_endpoints == "binance,kraken@sandbox"
    assert settings.venue_names() == ["binance", "kraken"]
    assert settings.execution_timeout == 12.5


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.yaml", "a: [", "is not YAML"),
        ("x.toml", "a = = 1", "is not TOML"),
        ("x.yaml", "- 1\n- 2\n", "must hold names with values"),
        ("x.yaml", "PORT:\n  deep: 1\n", "PORT must be a plain value"),
        ("missing.yaml", None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    (problem,) = problems(file)
    assert str(file) in problem
    assert said in problem
    assert "\n" not in problem


def test_an_unknown_name_in_the_file_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("MAX_RETRYS: 4\nzzz: 1\n")
    first, second = problems(file)
    assert "did you mean MAX_RETRIES?" in first
    assert second.startswith("zzz: unknown setting")


def test_other_variables_in_the_environment_are_nobody_s_business() -> None:
    settings = load(SOMETHING_ELSE="1", max_retries="9", OPENAI_API_KEY="not-ours")
    assert settings.max_retries == 3
    assert all("OPENAI" not in row.name for row in settings.rows())


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [
        ("MAX_RETRIES", "0", "a whole number of at least 1"),
        ("MAX_RETRIES", "many", "a whole number of at least 1"),
        ("EXECUTION_TIMEOUT", "-1", "a number of seconds above 0"),
        ("SIGNAL_MAX_AGE", "nan", "a number of seconds above 0"),
        ("PORT", "70000", "a port number from 0 to 65535"),
        ("LOG_LEVEL", "LOUD", "one of DEBUG, INFO"),
        ("SUBSCRIBER", "pull", "streaming or library"),
        ("UNKNOWN_ORDERS", "keep", "report or cancel"),
        ("PUBSUB_EMULATOR_HOST", "localhost", "host:port"),
        ("EVENTS_TOPIC", "projects/p/subscriptions/x", "a topic's name"),
        ("SIGNALS_SUBSCRIPTION", "two words", "a subscription's name"),
    ],
)
def test_a_wrong_value_is_refused_by_name_value_and_what_it_must_be(name: str, value: str, must: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name}: must be {must}")
    assert repr(value) in problem
    assert problem.endswith("(from environment)")


def test_every_wrong_value_is_told_at_once() -> None:
    assert len(problems(MAX_RETRIES="x", PORT="y")) == 2


def test_a_wrong_secret_is_not_repeated() -> None:
    for name, value in {"REDIS_URL": "http://:hunter22@host", "API_KEYS": "hunter22"}.items():
        (problem,) = problems(**{name: value})
        assert problem.startswith(f"{name}: must be")
        assert "hunter22" not in problem


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(REDIS_URL="", MAX_RETRIES="").max_retries == 3


def test_the_project_is_local_with_an_emulator_and_required_without() -> None:
    assert load().google_cloud_project == "local"
    assert load(GOOGLE_CLOUD_PROJECT="mine").google_cloud_project == "mine"
    with pytest.raises(SettingsError, match="GOOGLE_CLOUD_PROJECT: is required") as caught:
        Settings.load(env={})
    assert any("ADAPTER_ENDPOINTS: is required" in problem for problem in caught.value.problems)
    assert Settings.load(env={}, needs=()).google_cloud_project == ""


def test_where_http_listens_follows_from_keys_and_cloud_run() -> None:
    assert load().host == "127.0.0.1"
    assert load(API_KEYS="ops:secret-key").host == "0.0.0.0"
    assert load(K_SERVICE="execution").host == "0.0.0.0"
    assert load(API_KEYS="ops:secret-key", HOST="10.0.0.1").host == "10.0.0.1"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load().port = 1  # type: ignore[misc]


# --- credentials ----------------------------------------------------------------------------------------------------


def test_credentials_are_found_by_the_venue_s_name() -> None:
    settings = load(MY_OKX_API_KEY="key-1", MY_OKX_API_SECRET="secret-1", MY_OKX_API_PASSWORD="phrase-1")
    found = settings.credentials("my-okx")
    assert found is not None
    assert found.for_ccxt() == {"apiKey": "key-1", "secret": "secret-1", "password": "phrase-1"}
    assert settings.credentials("binance") is None


def test_credentials_come_from_files_without_their_line_ends(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("  s3cret\n")
    found = load(BINANCE_API_KEY="key-1", BINANCE_API_SECRET_FILE=str(secret)).credentials("binance")
    assert found is not None
    assert found.api_secret == "s3cret"


def test_a_credential_file_that_cannot_be_read_or_is_empty_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path, said in ((tmp_path / "missing", "No such file"), (empty, "is empty")):
        settings = load(BINANCE_API_KEY="key-1", BINANCE_API_SECRET_FILE=str(path))
        with pytest.raises(SettingsError, match=said) as caught:
            settings.credentials("binance")
        assert str(caught.value).startswith("BINANCE_API_SECRET_FILE: ")


def test_half_of_the_credentials_is_an_error() -> None:
    with pytest.raises(SettingsError, match="BINANCE_API_SECRET: is required"):
        load(BINANCE_API_KEY="key-1").credentials("binance")


def test_the_environment_s_credential_file_wins_over_the_settings_file_s_value(tmp_path: Path) -> None:
    secret, file = tmp_path / "secret", tmp_path / "settings.yaml"
    secret.write_text("from-environment")
    file.write_text("binance_api_key: key-1\nBINANCE_API_SECRET: from-file\n")
    found = load(file, BINANCE_API_SECRET_FILE=str(secret)).credentials("binance")
    assert found is not None
    assert (found.api_key, found.api_secret) == ("key-1", "from-environment")


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("in-a-file-1")
    secrets = ["redis-pass-1", "key-of-ops-1", "venue-secret-1", "in-a-file-1"]
    settings = load(
        REDIS_URL="redis://user:redis-pass-1@host:6379/0",
        API_KEYS="ops:key-of-ops-1:admin,view:key-of-ops-1",
        BINANCE_API_SECRET="venue-secret-1",
        BINANCE_API_KEY_FILE=str(file),
    )
    found = settings.credentials("binance")
    shown = f"{settings!r} {settings} {settings.rows()} {found!r} {found} {settings.keys()}"
    for secret in secrets:
        assert secret not in shown
        assert secret in settings.secrets()
    rows = {row.name: row for row in settings.rows()}
    assert rows["REDIS_URL"].value == "redis://user:********@host:6379/0"
    assert rows["API_KEYS"].value == "ops:********:admin, view:********"
    assert rows["BINANCE_API_SECRET"].value == "********"
    assert rows["BINANCE_API_KEY_FILE"].value == str(file)


def test_every_setting_has_a_meaning() -> None:
    for row in load().rows():
        assert len(row.meaning) > 10, row.name
