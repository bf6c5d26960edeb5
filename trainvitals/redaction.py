"""Secrets taken out of what a run records and of what a message says.

A run keeps the command that started it, its configuration and its notes, and errors name addresses:
each may hold a password or a token. What is hidden is a value under a name that speaks of a secret, the
password of an address, and words of the shape that providers give their tokens. Where it cannot be told
the value is hidden: a number lost from a list of arguments is not as bad as a key in a run file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"

_ALWAYS = {
    "apikey", "auth", "authorization", "authkey", "bearer", "cookie", "cookies", "credential", "credentials", "creds",
    "dsn", "otp", "passcode", "passphrase", "passwd", "password", "passwords", "pat", "pgpassword", "pw", "pwd",
    "sas", "secret", "secretkey", "secrets", "sig", "signature", "webhook",
}  # fmt: skip
_KEYS_OF = {
    "access", "account", "admin", "api", "app", "auth", "aws", "azure", "client", "deploy", "encryption", "gcp", "hf",
    "host", "huggingface", "license", "master", "mlflow", "openai", "private", "rsa", "secret", "service", "session",
    "shared", "signing", "ssh", "storage", "tls", "wandb",
}  # fmt: skip
# Tokens of a text, not of a door: `pad_token`, `token_dim`.
_TEXT_TOKENS = {
    "avg", "bos", "budget", "class", "cls", "count", "dim", "dropout", "embedding", "end", "eos", "id", "ids", "image",
    "len", "length", "level", "limit", "loss", "mask", "max", "mean", "min", "mixing", "n", "next", "num", "pad", "per",
    "sep", "shift", "size", "special", "start", "stop", "type", "unk", "weight",
}  # fmt: skip

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SHAPES = re.compile(
    r"""
      -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----[\s\S]*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \b(?:gh[pousr]_|github_pat_|glpat-|hf_|npm_|pypi-|dop_v1_|sk_live_|sk_test_|rk_live_|shpat_)[\w-]{8,}
    | \bsk-[A-Za-z0-9_-]{12,}
    | \bxox[abeprs]-[\w-]{8,}
    | \bxapp-[\w-]{8,}
    | \b(?:AKIA|ASIA|AGPA|AROA)[A-Z0-9]{12,}
    | \bAIza[\w-]{20,}
    | \bya29\.[\w-]{10,}
    | \bSG\.[\w-]{8,}\.[\w-]{8,}
    | \beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*
    | (?<=hooks\.slack\.com/services/)[\w/-]+
    | (?<=discord\.com/api/webhooks/)[\w/-]+
    """,
    re.VERBOSE,
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic|negotiate)(\s+)[A-Za-z0-9+/=._~-]{6,}")
_PAIR = re.compile(
    r"""(?x)
    (?P<quote>["']?) (?P<name>[A-Za-z_][\w.-]*) (?P=quote)
    (?P<between>\s*(?:=>|:=|=|:(?!//))\s*)
    (?P<value>"(?:\\.|[^"\\])*"? | '(?:\\.|[^'\\])*'? | [^\s&;,"'}\])]+)
    """
)
_USER_AND_PASSWORD = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^\s:/@?#]*):\S*@")
_USER = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^\s:/@?#]+)@")
_MAX_USER_LENGTH = 20  # a longer one, without a password, may be a token


def is_secret_name(name: str) -> bool:
    """Tell whether a value of that name is to be hidden.

    >>> [is_secret_name(n) for n in ("db_password", "--api-key", "hfToken", "max_tokens", "pad_token", "key_dim")]
    [True, True, True, False, False, False]
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    for at, word in enumerate(words):
        near = {*words[max(at - 1, 0) : at], *words[at + 1 : at + 2]}
        if word in _ALWAYS:
            return True
        if word in ("key", "keys") and words[at - 1 : at] and words[at - 1] in _KEYS_OF:
            return True
        if word in ("token", "pass") and not near & _TEXT_TOKENS:
            return True
        if word == "pass" and near & {"db", "user"}:
            return True
    joined = "".join(words)
    return any(part in joined for part in ("password", "passwd", "passphrase", "apikey", "secretkey", "accesstoken"))


def redact_text(text: str) -> str:
    """Return the text without passwords of addresses, values of secret names and tokens of a known shape.

    >>> redact_text("connecting to postgresql://ann:s3cret@db/runs?password=x failed")
    'connecting to postgresql://ann:***@db/runs?password=*** failed'
    """
    text = _SHAPES.sub(HIDDEN, text)
    text = _USER_AND_PASSWORD.sub(rf"\g<scheme>\g<user>:{HIDDEN}@", text)
    text = _USER.sub(_without_user, text)
    text = _SCHEME.sub(rf"\1\2{HIDDEN}", text)
    return _PAIR.sub(_without_value, text)


def _without_user(found: re.Match[str]) -> str:
    """Hide a user that stands alone where it may be a token: on the web, or when it is long."""
    is_name = not found["scheme"].lower().startswith("http") and len(found["user"]) <= _MAX_USER_LENGTH
    return found[0] if is_name else f"{found['scheme']}{HIDDEN}@"


def _without_value(found: re.Match[str]) -> str:
    name, between, value, quote = found["name"], found["between"], found["value"], found["quote"]
    if not is_secret_name(name):
        return f"{quote}{name}{quote}{between}{_PAIR.sub(_without_value, value)}"
    if value in (HIDDEN, "None", "null", "True", "False"):
        return found[0]
    mark = value[0] if value[0] in "\"'" else ""
    return f"{quote}{name}{quote}{between}{mark}{HIDDEN}{mark}"


def redact(value: Any, *, _name: str = "") -> Any:
    """Return the value with secrets hidden in it: mappings, sequences and texts at any depth.

    >>> redact({"lr": 0.1, "wandb": {"api_key": "0123"}, "url": "https://u:p@host"})
    {'lr': 0.1, 'wandb': {'api_key': '***'}, 'url': 'https://u:***@host'}
    """
    if value is None or isinstance(value, bool):
        return value
    if _name and is_secret_name(_name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {redact_text(str(key)): redact(item, _name=str(key)) for key, item in value.items()}
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
        if items and all(isinstance(item, str) for item in items):
            return redact_arguments(items)  # a list of words may be a command
        return [redact(item) for item in items]
    return value


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command's words with the values of secret options hidden.

    >>> redact_arguments(["train.py", "--lr", "0.1", "--hf-token", "hf_abc", "--password=x", "DB_PASSWORD=y"])
    ['train.py', '--lr', '0.1', '--hf-token', '***', '--password=***', 'DB_PASSWORD=***']
    """
    hidden: list[str] = []
    is_value = False
    for word in map(str, arguments):
        if is_value and not word.startswith("--"):
            hidden.append(HIDDEN)
            is_value = False
            continue
        name, equals, _ = word.partition("=")
        if equals and is_secret_name(name) and "://" not in name:
            hidden.append(f"{name}={HIDDEN}")
        else:
            hidden.append(redact_text(word))
        is_value = not equals and word.startswith("-") and is_secret_name(word)
    return hidden
