"""The kinds of value a configuration holds, each with its check and a message that says the remedy.

Sources: RFC 3986 (URLs), RFC 4632 and 4291 (networks), ISO 8601 (times).
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, date, datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
)

_DAY_S = 86_400
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Network = IPv4Network | IPv6Network


def parse_expiry(text: str) -> datetime:
    """Find the moment a key ends: for a date its first instant, 00:00 UTC; no zone means UTC.

    Raises:
        ValueError: not an ISO 8601 date or time; the message says what is.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a date; write 2027-01-01 or 2027-01-01T12:00:00Z") from None


def parse_service_url(text: str) -> str:
    """`http(s)://host[:port]` in normal form, without a trailing slash.

    Raises:
        ValueError: anything more, less or else; the message does not repeat the URL, which may
            hold a password.
    """
    remedy = "write http://host:port"
    if " " in text or not text.isprintable():
        raise ValueError(f"a URL holds no white space; {remedy}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"not a URL; {remedy}") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"not an http or https URL; {remedy}")
    if "@" in parts.netloc:
        raise ValueError(f"user and password do not belong in the URL; {remedy} and use api_key")
    if parts.path not in {"", "/"} or "?" in text or "#" in text:
        raise ValueError(f"a path, query or fragment does not belong in the URL; {remedy}")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(f"the port must be 1 to 65535; {remedy}")
    host = _url_host(parts, remedy)
    return f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"


def _url_host(parts: SplitResult, remedy: str) -> str:
    host = parts.hostname or ""
    if parts.netloc.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host).compressed}]"
        except ValueError:
            raise ValueError(f"not an IPv6 address between [ and ]; {remedy}") from None
    if not _HOST.fullmatch(host):
        raise ValueError(f"not a host name or address; {remedy}")
    return host


def _network(value: object) -> Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    remedy = "write an address or a network such as 172.16.0.0/12"
    text = value if isinstance(value, str) else ""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"not a network; {remedy}") from None
    if "/" in text and ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"not the first address of a network; write {network}")
    return network


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "must be 1 to 64 of letters, digits, '.', '_' and '-', letter or digit first"
        )
    return value


def _model_name(value: str) -> str:
    if not 1 <= len(value) <= 256 or not value.isprintable() or " " in value:
        raise ValueError("must be 1 to 256 printable characters without spaces")
    return value


def _url_path(value: str) -> str:
    if len(value) > 256 or not _PATH.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError("not a plain path; write one such as /health, without a slash at its end")
    return value


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value.lower()):
        raise ValueError("not a SHA-256; write the 64 hexadecimal digits that sha256sum prints")
    return value.lower()


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) > 4096 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            "not a key that a header can carry: printable ASCII, no spaces, up to 4096"
        )
    return value


def _listen_host(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        if not _HOST.fullmatch(value):
            raise ValueError(
                "not an address; write 0.0.0.0, 127.0.0.1, :: or a host name"
            ) from None
        return value


def _docker_endpoint(value: str) -> str:
    remedy = "write unix:///var/run/docker.sock or tcp://host:port"
    scheme, separator, rest = value.partition("://")
    if scheme == "unix" and rest.startswith("/") and rest.isprintable():
        return value
    if not separator or scheme not in {"tcp", "http", "https"}:
        raise ValueError(f"not an endpoint of a Docker engine; {remedy}")
    target = parse_service_url(f"{'http' if scheme == 'tcp' else scheme}://{rest}")
    return f"{scheme}://{target.partition('://')[2]}"


def _ledger_url(value: str) -> str:
    path = value.removeprefix("sqlite:///")
    if value != "memory://" and (path in {value, "", "/"} or not path.isprintable()):
        raise ValueError("not a ledger; write sqlite:///state/router.db or memory://")
    if Path(path) == Path(":memory:"):
        raise ValueError(
            "of a database in memory each connection would have its own; write memory://"
        )
    return value


def _from_config_folder(value: Path, info: ValidationInfo) -> Path:
    if "\0" in str(value):
        raise ValueError("no path holds a null; write one such as services.d")
    folder = (info.context or {}).get("folder")
    return value if folder is None else Path(folder) / value


def _text_of_number(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _moment(value: object) -> datetime:
    if isinstance(value, date):
        value = value.isoformat()
    return parse_expiry(value if isinstance(value, str) else "")


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _available_policy(value: object) -> object:
    if isinstance(value, str) and value in {"prefix_cache", "consistent_hash"}:
        remedy = "write least_load or round_robin"
        raise ValueError(f"{value} is not available in this release; {remedy}")
    return value


Policy = Annotated[Literal["least_load", "round_robin"], BeforeValidator(_available_policy)]
Seconds = Annotated[float, Field(gt=0, le=_DAY_S, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Quota = Annotated[int, Field(ge=0, le=10**15)]
Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(_model_name)]
UrlPath = Annotated[str, AfterValidator(_url_path)]
ServiceUrl = Annotated[str, AfterValidator(parse_service_url)]
ListenHost = Annotated[str, AfterValidator(_listen_host)]
DockerEndpoint = Annotated[str, AfterValidator(_docker_endpoint)]
LedgerUrl = Annotated[str, AfterValidator(_ledger_url)]
NetworkField = Annotated[Network, PlainValidator(_network)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
OptionalSha256 = Annotated[Sha256 | None, BeforeValidator(_none_if_empty)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
OptionalSecret = Annotated[Secret | None, BeforeValidator(_none_if_empty)]
ConfigPath = Annotated[Path, AfterValidator(_from_config_folder)]
GpuLabel = Annotated[
    str, BeforeValidator(_text_of_number), Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")
]
Moment = Annotated[datetime, PlainValidator(_moment)]
