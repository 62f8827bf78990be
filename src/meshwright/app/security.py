"""Who may speak to the server: host and origin checks, the token, and what every answer says to browsers."""

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

# Everything comes from this server. Pictures and meshes that the page made itself are blobs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob:;"
    " font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_LOCAL_NAMES = ("localhost", "localhost.localdomain")
_PORT = re.compile(r":\d{1,5}\Z")


@dataclass(frozen=True)
class Door:
    """The rules by which a request comes in. ``token``: None on a server that only this machine reaches."""

    token: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    port: int = 0

    def host_is_ours(self, host: str) -> bool:
        """Whether a Host header is an address, localhost or a name the operator gave.

        A page of another site can make its own name point at this machine (DNS rebinding), but not an address.
        """
        name = _PORT.sub("", host).lower().rstrip(".")
        if name in _LOCAL_NAMES or name in (known.lower() for known in self.hosts):
            return True
        try:
            address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return self.token is not None or address.is_loopback

    def origin_is_ours(self, origin: str | None, host: str, fetch_site: str | None) -> bool:
        """Whether a request that changes something was made by our own page, by a named one, or by no page at all."""
        if origin is not None:
            return origin in self.origins or (
                urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc.lower() == host.lower()
            )
        return fetch_site in (None, "same-origin", "none")

    @property
    def cookie(self) -> str:
        """Cookies do not know ports: two servers on one machine use two names."""
        return f"meshwright-{self.port}"

    def knows(self, authorization: str | None, cookies: str | None) -> bool:
        """Whether a request brings the token, as a bearer or in the cookie of the page."""
        if self.token is None:
            return True
        given = []
        if authorization is not None and authorization[:7].lower() == "bearer ":
            given.append(authorization[7:].strip())
        if cookies is not None:
            try:
                jar = SimpleCookie(cookies[:4096])
            except Exception:  # CookieError, of a kind for every oddity
                jar = SimpleCookie()
            given += [jar[self.cookie].value] if self.cookie in jar else []
        return any(self.matches(one) for one in given)

    def matches(self, token: str) -> bool:
        return self.token is not None and hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())
