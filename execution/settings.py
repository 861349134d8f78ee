"""Settings: from the environment, else from a file, else the default; each with its meaning, its value and where it came from."""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from execution.api_keys import ApiKey, parse_api_keys
from execution.config_file import ConfigFileError, read_config_file
from execution.credentials import MASK, Credentials, CredentialsError, CredentialVariables, is_credential

_SECRET = frozenset({"redis_url", "api_keys"})
_EVERYWHERE = "0.0.0.0"  # noqa: S104 (keys are asked for, or only health checks answered: see execution/http_server.py)
_CLOUD_RUN = ("K_SERVICE", "CLOUD_RUN_WORKER_POOL", "CLOUD_RUN_JOB")


class SettingsError(Exception):
    """Settings that cannot be used: one line per problem, fit to be shown (secrets are masked)."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class SettingRow(NamedTuple):
    """One setting as operators see it. `name` is the environment's; secrets in `value` are masked."""

    name: str
    meaning: str
    value: str
    origin: str


class Source(NamedTuple):
    """Where values come from, and the values by environment name."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Must:
    """What a value must be, in words that follow "must be"."""

    be: str


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def _none_or_ten(value: float) -> float:
    if not (value == 0 or 10 <= value < float("inf")):
        raise ValueError
    return value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), Must("a number of seconds above 0")]
Days = Annotated[float, Field(gt=0, allow_inf_nan=False), Must("a number of days above 0")]
Count = Annotated[int, Field(ge=1), Must("a whole number of at least 1")]
PortNumber = Annotated[int, Field(ge=0, le=65535), Must("a port number from 0 to 65535")]
Topic = Annotated[
    str,
    Field(min_length=3, pattern=r"^(projects/[^/]+/topics/)?[A-Za-z][A-Za-z0-9._~+%-]*$"),
    Must("a topic's name of 3 or more letters, digits and -_.~+%, or projects/PROJECT/topics/NAME"),
]
Subscription = Annotated[
    str,
    Field(min_length=3, pattern=r"^(projects/[^/]+/subscriptions/)?[A-Za-z][A-Za-z0-9._~+%-]*$"),
    Must("a subscription's name of 3 or more letters, digits and -_.~+%, or projects/PROJECT/subscriptions/NAME"),
]
Text = Annotated[str, Field(min_length=1), Must("a text")]
Level = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(_upper),
    Must("one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
]


class Settings(BaseSettings):
    """Everything that can be set. Attribute names are the environment's names in lower case."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True, coerce_numbers_to_str=True
    )

    google_cloud_project: str = Field(
        default="", description="Google Cloud project id; `local` when PUBSUB_EMULATOR_HOST is set."
    )
    pubsub_emulator_host: Annotated[str | None, Must("host:port")] = Field(
        default=None,
        description="host:port of a Pub/Sub emulator; missing topics and subscriptions are then created. "
        "Unset: the real service (in `execution dev`: an embedded emulator).",
    )
    redis_url: Annotated[str | None, Must("redis://[user:password@]host:port/db, rediss://... or unix:///path")] = (
        Field(default=None, description="State store. Unset: an embedded server, on disk below DATA_DIR.")
    )
    adapter_endpoints: str = Field(
        default="",
        description="Venues: comma list of NAME[=EXCHANGE][@WHERE]. NAME is what a signal's `exchange` says, EXCHANGE a ccxt "
        "id (default NAME), WHERE one of live (default), sandbox, paper (real market, fills made here), a base URL, or paper+URL. Required.",
    )
    max_retries: Count = Field(default=3, description="Tries of a retryable venue request.")
    execution_timeout: Seconds | None = Field(
        default=None,
        description="Seconds a Direct order may work before the rest is cancelled; a signal's `expires_at` wins. "
        "Unset: no limit.",
    )
    log_level: Level = Field(default="INFO", description="Lowest level that is logged.")
    port: PortNumber = Field(default=8002, description="TCP port of health and metrics; 0: any free one.")
    signals_topic: Topic = Field(default="approved-signals", description="Topic of risk-approved signals.")
    signals_subscription: Subscription = Field(
        default="execution-signals", description="Subscription they are read from."
    )
    control_topic: Topic = Field(default="execution-control", description="Topic of commands.")
    control_subscription: Subscription = Field(
        default="execution-control", description="Subscription they are read from."
    )
    events_topic: Topic = Field(default="order-events", description="Topic that order events are published to.")
    signal_max_age: Seconds = Field(
        default=3600.0,
        description="Seconds after its publish time at which a signal is too old to trade; `expires_at` in the signal wins.",
    )
    dead_letter_topic: Topic = Field(
        default="approved-signals-dead-letter", description="Topic for messages that could not be identified."
    )
    instance_id: Text = Field(default="", description="Name of this replica. Default: host name and pid.")
    api_keys: Annotated[str | None, Must("a comma list of name:key[:role], role viewer, trader or admin")] = Field(
        default=None,
        description="Comma list name:key[:role] of who may use the HTTP interface; roles viewer, trader, admin. "
        "Unset: only this machine is served.",
    )
    data_dir: Annotated[Path, Must("a directory")] = Field(
        default=Path(".execution"), description="Directory of the embedded state store and of `execution dev`."
    )
    host: Text = Field(
        default="",
        description="Address that HTTP listens on. Default: 127.0.0.1 while API_KEYS is unset, else 0.0.0.0; on Cloud Run "
        "0.0.0.0, where without API_KEYS only the health checks answer.",
    )
    shards: Annotated[int, Field(ge=1, le=1024), Must("a whole number from 1 to 1024")] = Field(
        default=32,
        description="Parts that orders are divided into, the unit of ownership. Fixed once the ledger exists.",
    )
    lease_ttl: Seconds = Field(
        default=5.0, description="Seconds after which a replica that does not renew loses its shards to another."
    )
    request_ttl: Seconds = Field(
        default=5.0,
        description="Seconds after which a venue must refuse an order request that is still on its way (recvWindow and the like).",
    )
    max_outstanding: Count = Field(default=1000, description="Signals held unacknowledged at a time.")
    max_live_orders: Count = Field(default=20_000, description="Working orders per replica at which intake pauses.")
    max_queued_sends: Count = Field(
        default=256, description="Orders waiting for their turn at a venue at which intake pauses."
    )
    poll_interval: Seconds = Field(
        default=2.0, description="Seconds between REST polls of open orders while a venue's stream is down."
    )
    reconcile_interval: Seconds = Field(
        default=30.0, description="Seconds between comparisons of the ledger with each venue."
    )
    order_retention_days: Days = Field(default=30.0, description="Days that an ended order stays in the ledger.")
    signal_retention_days: Days = Field(
        default=90.0, description="Days for which a signal's id is remembered, so that it is never traded twice."
    )
    stream_trade_maxlen: Count = Field(default=1_000_000, description="Entries kept in the Redis stream STREAM:TRADE.")
    shutdown_timeout: Seconds = Field(default=8.0, description="Seconds from SIGTERM to the end of the process.")
    subscriber: Annotated[Literal["streaming", "library"], BeforeValidator(_lower), Must("streaming or library")] = (
        Field(
            default="streaming",
            description="How Pub/Sub is read: streaming (this service's own asyncio client) or library (google-cloud-pubsub's).",
        )
    )
    unknown_orders: Annotated[Literal["report", "cancel"], BeforeValidator(_lower), Must("report or cancel")] = Field(
        default="cancel",
        description="What to do about open orders at a venue under client order ids of ours that nobody works, since the ledger "
        "has no order for them: cancel or report. Other people's orders are never touched.",
    )
    cost_reports: Annotated[int, Field(ge=0), Must("a whole number, 0 for none")] = Field(
        default=100_000,
        description="Cost reports (TCA) of ended orders kept for `execution report`; they expire with their orders. "
        "0: none are measured, and the last event of an order carries none.",
    )
    bracket_distance_bps: Annotated[Decimal, Field(ge=0), Must("a number of bps, 0 or above")] = Field(
        default=Decimal(5),
        description="How close to the entry's price a take_profit or stop_loss may be, in bps; at least one tick.",
    )
    bracket_policy: Annotated[Literal["adjust", "reject"], BeforeValidator(_lower), Must("adjust or reject")] = Field(
        default="adjust",
        description="What happens to a take_profit or stop_loss that is too close: adjust moves it, reject refuses the signal.",
    )
    dead_man_timeout: Seconds = Field(
        default=30.0,
        description="Seconds of silence after which a pulse trips the dead man's switch, for heartbeats that name no timeout.",
    )
    venue_timer: Annotated[float, AfterValidator(_none_or_ten), Must("0, or 10 seconds or more")] = Field(
        default=60.0,
        description="Seconds after which a venue that has a timer of its own (Kraken, OKX, HTX, ...) cancels everything on the account, "
        "other people's orders too, unless this service winds it up; it is armed while entries are open. 0: not used.",
    )
    paper_latency_ms: Annotated[float, Field(ge=0), Must("milliseconds, 0 or above")] = Field(
        default=50.0, description="Milliseconds from a paper venue's request to its answer (`@paper`)."
    )
    log_format: Annotated[
        Literal["auto", "json", "console"], BeforeValidator(_lower), Must("auto, json or console")
    ] = Field(default="auto", description="json, console, or auto: console on a terminal, else json.")
    failpoints: Annotated[str | None, Must("a comma list of NAME=kill|hang[@N]")] = Field(
        default=None, description="For tests only: points at which the process kills or stops itself."
    )
    clock_bound_ms: Annotated[int, Field(ge=1), Must("a whole number of milliseconds above 0")] = Field(
        default=1000,
        description="Milliseconds by which this clock and a venue's may differ before the venue is not used.",
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _credentials: CredentialVariables = PrivateAttr(default_factory=CredentialVariables)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has collected, so that the origin of every value is known."""
        assert issubclass(cls, settings_cls)
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _computed_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        if values.get("pubsub_emulator_host"):
            values.setdefault("google_cloud_project", "local")
        values.setdefault("instance_id", f"{socket.gethostname()}-{os.getpid()}")
        values.setdefault("host", _EVERYWHERE if values.get("api_keys") else "127.0.0.1")
        return values

    @field_validator("pubsub_emulator_host")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None:
            value = value.removeprefix("http://").rstrip("/")
            host, _, port = value.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"^(rediss?|unix|redis\+cluster)://.", value):
            raise ValueError
        return value

    @field_validator("api_keys")
    @classmethod
    def _keys_readable(cls, value: str | None) -> str | None:
        parse_api_keys(value)
        return value

    # --- loading ----------------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        config: Path | None = None,
        env: Mapping[str, str] | None = None,
        *,
        needs: Iterable[str] = ("google_cloud_project", "adapter_endpoints"),
        fallback: Source | None = None,
    ) -> Self:
        """Read the settings.

        Args:
            config: a YAML or TOML file with the same names, upper or lower case.
            env: the environment; None: this process's.
            needs: names of settings that must be set.
            fallback: values used where neither the environment nor the file says anything.

        Raises:
            SettingsError: a value is wrong, a needed one missing, the file unreadable, or a name in it unknown.
        """
        environment = os.environ if env is None else env
        sources = [Source("environment", environment)]
        try:
            if config is not None:
                sources.append(Source(f"file {config}", _known_only(config, read_config_file(config))))
        except ConfigFileError as error:
            raise SettingsError([str(error)]) from error
        if fallback is not None:
            sources.append(fallback)
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        credentials = CredentialVariables()
        for origin, found in sources:
            for name, value in found.items():
                if value is None or value == "":
                    continue
                field = name.lower()
                # Variables have upper-case names; a lower-case `port` in the environment means something else.
                if field in cls.model_fields and (origin != "environment" or name == name.upper()):
                    if field not in values:
                        values[field], origins[field] = value, origin
                elif is_credential(name):
                    credentials.add(name, str(value), origin)
        if "host" not in values and any(environment.get(name) for name in _CLOUD_RUN):
            values["host"] = _EVERYWHERE  # Cloud Run's probes come from outside the container
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise SettingsError(
                _problem(str(detail["loc"][0]), values, origins) for detail in error.errors(include_url=False)
            ) from None
        settings._origins = origins
        settings._credentials = credentials
        missing = [_MISSING[name] for name in needs if not getattr(settings, name)]
        if missing:
            raise SettingsError(missing)
        return settings

    # --- secrets ----------------------------------------------------------------------------------------------------

    def credentials(self, venue: str) -> Credentials | None:
        """The credentials of a venue by its NAME in ADAPTER_ENDPOINTS; None when none are set.

        Raises:
            SettingsError: only half of them are set, or a `..._FILE` cannot be read.
        """
        try:
            return self._credentials.of(venue)
        except CredentialsError as error:
            raise SettingsError([str(error)]) from error

    def keys(self) -> tuple[ApiKey, ...]:
        """Who may use the HTTP interface."""
        return parse_api_keys(self.api_keys)

    def secrets(self) -> list[str]:
        """Every secret value, for masking in logs. Credentials whose file cannot be read are left out."""
        found = self._credentials.secrets() + [key.key for key in self.keys()]
        password = urlsplit(self.redis_url).password if self.redis_url else None
        return [*found, password, unquote(password)] if password else found

    # --- showing ----------------------------------------------------------------------------------------------------

    def origin(self, name: str) -> str:
        """Where a setting came from: `environment`, `file X`, the fallback's name or `default`."""
        return self._credentials.origin(name) or self._origins.get(name.lower(), "default")

    def rows(self) -> list[SettingRow]:
        """Every setting, and the credentials that are set, with secrets masked."""
        rows = [
            SettingRow(name.upper(), field.description or "", self._shown(name), self.origin(name))
            for name, field in type(self).model_fields.items()
        ]
        return rows + [SettingRow(*row) for row in self._credentials.rows(self.venue_names())]

    def venue_names(self) -> list[str]:
        """The NAME of each endpoint in ADAPTER_ENDPOINTS, in order."""
        items = (item.strip() for item in self.adapter_endpoints.split(","))
        return [re.split("[=@]", item, maxsplit=1)[0].strip() for item in items if item]

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if value is None:
            return ""
        return f"{value:g}" if isinstance(value, float) else masked(name, str(value))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, self._shown(name)) for name in type(self).model_fields]


def masked(name: str, value: str) -> str:
    """A setting's value, fit to be shown."""
    if name == "redis_url":
        return re.sub(r"(://[^:@/]*:)[^@]*@", rf"\g<1>{MASK}@", re.sub(r"(?i)(password=)[^&]*", rf"\g<1>{MASK}", value))
    if name == "api_keys":
        return ", ".join(
            ":".join([parts[0], MASK, *parts[2:]]) if len(parts) > 1 else MASK
            for parts in (item.strip().split(":") for item in value.split(","))
        )
    return value


def _known_only(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The file's values by upper-case name."""
    known = {name.upper() for name in Settings.model_fields}
    problems = []
    for name in values:
        if name.upper() not in known and not is_credential(name.upper()):
            close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]}?" if close else "; `execution config` lists the known ones"
            problems.append(f"{name}: unknown setting in {path}{hint}")
    if problems:
        raise SettingsError(problems)
    return {name.upper(): value for name, value in values.items()}


def _problem(field: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    rule = next((item.be for item in Settings.model_fields[field].metadata if isinstance(item, Must)), None)
    if rule is None:  # `X | None` keeps the metadata of X inside the union
        rule = next((item.be for item in _inner_metadata(field) if isinstance(item, Must)), "a text")
    given = MASK if field in _SECRET else repr(values.get(field))
    return f"{field.upper()}: must be {rule}, not {given} (from {origins.get(field, 'default')})"


def _inner_metadata(field: str) -> list[Any]:
    inner = getattr(Settings.model_fields[field].annotation, "__args__", ())
    return [item for part in inner for item in getattr(part, "__metadata__", ())]


_MISSING = {
    "google_cloud_project": "GOOGLE_CLOUD_PROJECT: is required: the project id, or set PUBSUB_EMULATOR_HOST to use an emulator",
    "adapter_endpoints": "ADAPTER_ENDPOINTS: is required: the venues to trade on, such as binance@sandbox,kraken",
    "redis_url": "REDIS_URL: is required: the service's Redis, such as redis://localhost:6379/0",
}
