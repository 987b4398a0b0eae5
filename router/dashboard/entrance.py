"""Who may look, and how one logs in: the admin key once, a cookie from then on."""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable
from time import monotonic
from urllib.parse import urlsplit

import msgspec

from router.access.secret import MAX_KEY_LENGTH, digest_of
from router.api.answer import Answer, Asking, json_answer
from router.config.settings import ServerSettings
from router.dashboard.sessions import Sessions
from router.errors import BadRequest, InvalidApiKey, InvalidJson, MissingApiKey, RateLimitExceeded
from router.limits.address import within
from router.limits.rate import RateLimiter

COOKIE = "router_session"
_TRIES_PER_S = 0.2
_TRIES_AT_ONCE = 10
_ADDRESSES = 4096
_NO_STORE = ("cache-control", "no-store")


class Access(enum.StrEnum):
    """How much a visitor sees."""

    NONE = "none"
    READER = "reader"
    """What `/services` shows: no organizations."""
    ADMIN = "admin"


class LogIn(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a log-in."""

    key: str


class Entrance:
    """Decides how much a visitor sees; log-ins and log-outs.

    Where an admin key is configured it alone opens. Where none is, those see the dashboard who see
    `/services`, and they see no more.

    Args:
        settings: asked for anew at each use, so that a reload counts.
        clock: monotonic seconds.
    """

    def __init__(
        self, settings: Callable[[], ServerSettings], clock: Callable[[], float] = monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sessions = Sessions(clock)
        self._tries = RateLimiter(_TRIES_PER_S, _TRIES_AT_ONCE, max_entries=_ADDRESSES)

    def access(self, asking: Asking) -> Access:
        """How much the caller sees now."""
        settings = self._settings()
        wanted = settings.admin_key_sha256
        if wanted is None:
            address = asking.address
            allowed = address is not None and within(address, settings.status_allow)
            return Access.READER if allowed else Access.NONE
        token = session_token(asking.header(b"cookie"))
        if token is not None and self._sessions.counts(token, wanted):
            return Access.ADMIN
        return Access.NONE

    def check(self, asking: Asking) -> Access:
        """How much the caller sees.

        Raises:
            MissingApiKey: nothing.
        """
        access = self.access(asking)
        if access is Access.NONE:
            raise MissingApiKey(self._remedy())
        return access

    def session(self, asking: Asking) -> Answer:
        """`GET /dashboard/session`: what the page asks first, whoever it is shown to."""
        access = self.access(asking)
        page = {
            "access": str(access),
            "can_log_in": self._settings().admin_key_sha256 is not None,
            "message": self._remedy() if access is Access.NONE else "",
        }
        answer = json_answer(page)
        return Answer(answer.body, headers=(_NO_STORE,))

    def log_in(self, asking: Asking) -> Answer:
        """`POST /dashboard/login`, body `{"key": "<admin key>"}`: a session, as a cookie.

        Raises:
            BadRequest: another site sent it, or the body is not what this takes.
            RateLimitExceeded: too many log-ins from this address.
            InvalidApiKey: it is not the admin key, or none is configured.
        """
        check_origin(asking)
        wait_s = self._tries.check(asking.client, self._clock())
        if wait_s is not None:
            raise RateLimitExceeded("Too many log-ins from this address.", retry_after_s=wait_s)
        key = _posted(asking).key.strip()
        wanted = self._settings().admin_key_sha256
        if wanted is None:
            raise InvalidApiKey(self._remedy())
        if len(key) > MAX_KEY_LENGTH or not hmac.compare_digest(
            digest_of(key), bytes.fromhex(wanted)
        ):
            raise InvalidApiKey("This is not the admin key.")
        token = self._sessions.open(wanted)
        cookie = _cookie(token, int(self._sessions.life_s), secure=asking.is_secure)
        return Answer(b'{"access":"admin"}', headers=(_NO_STORE, ("set-cookie", cookie)))

    def log_out(self, asking: Asking) -> Answer:
        """`POST /dashboard/logout`: ends the caller's session, if there is one.

        Raises:
            BadRequest: another site sent it.
        """
        check_origin(asking)
        token = session_token(asking.header(b"cookie"))
        if token is not None:
            self._sessions.close(token)
        cookie = _cookie("", 0, secure=asking.is_secure)
        return Answer(b'{"access":"none"}', headers=(_NO_STORE, ("set-cookie", cookie)))

    def _remedy(self) -> str:
        if self._settings().admin_key_sha256 is None:
            return (
                "No admin key is configured, so the dashboard is shown to server.status_allow "
                "alone. Write server.admin_key_sha256 (printf %s KEY | sha256sum), "
                "or add this address to server.status_allow."
            )
        return "The dashboard takes the admin key; log in at /dashboard."


def check_origin(asking: Asking) -> None:
    """Let pass what the router's own page sent, or no page at all.

    Raises:
        BadRequest: the page of another site sent it.
    """
    origin = asking.header(b"origin")
    if origin is not None and not is_same_origin(origin, asking.header(b"host")):
        raise BadRequest("This was sent by a page of another site (Origin is not Host).")


def is_same_origin(origin: str | None, host: str | None) -> bool:
    """Whether `Origin` names the host that was asked; which scheme a proxy speaks is its matter."""
    if not origin or not host:
        return False
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc.lower() == host.strip().lower()


def session_token(cookies: str | None) -> str | None:
    """The session's token of a `Cookie` header; None where there is none."""
    for pair in (cookies or "").split(";"):
        name, equals, value = pair.strip().partition("=")
        if equals and name == COOKIE and value:
            return value
    return None


def _cookie(token: str, max_age_s: int, *, secure: bool) -> str:
    cookie = f"{COOKIE}={token}; Path=/dashboard; Max-Age={max_age_s}; HttpOnly; SameSite=Strict"
    return f"{cookie}; Secure" if secure else cookie


def _posted(asking: Asking) -> LogIn:
    """The body of a log-in; only JSON: what a form of another site can send is not."""
    content_type = (asking.header(b"content-type") or "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise BadRequest("Send the key as application/json.")
    try:
        return msgspec.json.decode(asking.body, type=LogIn)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidJson('The body must be {"key": "<admin key>"}.') from None
