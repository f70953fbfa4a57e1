"""What the URL of an OpenAI-compatible server says: where it is, who calls, which model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urldefrag, urlsplit, urlunsplit

from vecdb.errors import InvalidParameterError, shown
from vecdb.registry.extras import needs_extra

with needs_extra():
    import httpx

_SECRET = re.compile(r"(?<=//).*@|(?<=\?).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's URL in parts; what may be secret is in no message.

    Attributes
    ----------
    base
        The URL with its path, without user, password and query.
    query
        What follows a "?" in the URL, which every request's has as well; it may be a key.
    auth
        User and password of the URL, sent by basic authentication.
    model
        The URL's fragment, which names a model; "" when there is none.
    """

    base: str
    query: str = field(repr=False)
    auth: tuple[str, str] | None = field(repr=False)
    model: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the parts of `url`; without a path, ``/v1`` is assumed.

        Raises
        ------
        InvalidParameterError
            If it is not a URL of a server.
        """
        form = f"url={shown(_SECRET.sub('', url))}: must be like http://host:port/v1#model"
        try:
            whole, model = urldefrag(url)
            parts = urlsplit(whole)
            parsed = httpx.URL(whole)
            parsed.host.encode("idna")  # as it is looked up
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except (ValueError, httpx.InvalidURL) as error:
            # A password with a "/" is taken for a port, and named.
            reason = "" if "@" in url else f" ({error})"
            raise InvalidParameterError(f"{form}{reason}") from None
        if not usable:
            raise InvalidParameterError(form)
        _, at, host = parts.netloc.rpartition("@")
        base = urlunsplit((parts.scheme, host, parts.path, "", "")).rstrip("/")
        return cls(
            base if parts.path.strip("/") else f"{base}/v1",
            parts.query,
            (parsed.username, parsed.password) if at else None,
            model,
        )

    def at(self, path: str) -> str:
        """Return the URL of a path below the base, with the query."""
        return f"{self.base}/{path}" + (f"?{self.query}" if self.query else "")


def shown_url(request: httpx.Request) -> str:
    """Return a request's URL as messages show it: without the query."""
    return str(request.url.copy_with(query=None))
