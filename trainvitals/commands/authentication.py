"""Who may see a dashboard that others can reach: the file that names an OpenID provider, checked before the start.

The login itself is Streamlit's (`st.login`, over Authlib); `views/login.py` lets nobody past it.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trainvitals.store.errors import StoreError

REQUIRED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
CALLBACK = "/oauth2callback"  # where Streamlit listens for the answer
MIN_SECRET = 32  # characters: 128 bits in hexadecimal
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AuthenticationError(StoreError):
    """A file that cannot protect a dashboard."""


@dataclass(frozen=True)
class Authentication:
    """A file that can."""

    path: Path
    host: str  # the name under which browsers reach the dashboard: that of `redirect_uri`


def read_authentication(path: str | os.PathLike[str]) -> Authentication:
    """Read and check the file; nothing is asked of the provider yet.

    Raises:
        AuthenticationError: if it is not there, others may read it, something is missing in it, the dashboard
            would be reached without TLS, nobody is allowed, or the extra `trainvitals[auth]` is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise _error("a TOML file with a section [auth]", f"no file at {file}", "docs/security.md has an example")
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise _error("a file that its owner alone may read", f"{file} that others may", f"chmod 600 {file}")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _error("a TOML file", f"{file} ({error})", "correct it") from error
    authentication = Authentication(file.resolve(), _checked(file, content))
    if importlib.util.find_spec("authlib") is None:
        raise _error("Authlib to be installed", "an environment without it", "pip install 'trainvitals[auth]'")
    return authentication


def _checked(file: Path, content: Mapping[str, Any]) -> str:
    """Return the host of the redirect address of a complete file."""
    auth = content.get("auth")
    auth = auth if isinstance(auth, dict) else {}
    absent = [key for key in REQUIRED if not isinstance(auth.get(key), str) or not auth[key]]
    if absent:
        raise _error(f"{', '.join(REQUIRED)} in [auth]", f"{file} without {', '.join(absent)}", "add them")
    if len(auth["cookie_secret"]) < MIN_SECRET:
        raise _error(f"a cookie_secret of {MIN_SECRET} characters or more", f"{len(auth['cookie_secret'])}",
                     "python -c 'import secrets; print(secrets.token_hex(32))'")  # fmt: skip
    allow = (content.get("trainvitals") or {}).get("allow")
    if not isinstance(allow, list) or not allow or not all(isinstance(word, str) and word for word in allow):
        raise _error('a list allow in [trainvitals], such as ["ada@example.org", "*@example.org"]', f"{allow!r}",
                     'allow = ["*"] lets everybody in who can log in at the provider')  # fmt: skip
    redirect = urlsplit(auth["redirect_uri"])
    host = redirect.hostname or ""
    if not redirect.path.endswith(CALLBACK) or not host:
        raise _error(f"a redirect_uri that ends in {CALLBACK}", repr(auth["redirect_uri"]),
                     f"https://dashboard.example.org{CALLBACK}")  # fmt: skip
    for key in ("redirect_uri", "server_metadata_url"):
        parts = urlsplit(auth[key])
        if parts.scheme != "https" and (parts.hostname or "") not in LOOPBACK:
            raise _error(f"{key} with https", repr(auth[key]),
                         "put a server with TLS in front, or a login travels in the clear")  # fmt: skip
    return host


def _error(expected: str, got: str, hint: str) -> AuthenticationError:
    return AuthenticationError(f"expected {expected}, got {got} in --auth; {hint}")
