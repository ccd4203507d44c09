"""Secrets: users, passwords and queries of addresses, kept out of whatever leaves the program.

An address is `scheme://user:password@host/path?name=value`.
"""

import os
import re
from urllib.parse import unquote

MASK = "***"
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+?)([:;,.]*(?:\s|$|['\"<>]))")
"""Addresses within a text, and the punctuation after each; `masked` parses what is found."""
VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
SHORTEST = 4
"""Length from which a secret is looked for outside its address; a shorter one is also a word."""
SECRET = re.compile("pass|pwd|secret|token|key|user|uid", re.IGNORECASE)
"""Names in a query whose values are hidden also where they stand alone."""
NAME = re.compile(r"[\w.-]{0,16}")
"""User names; a longer text, or one with other characters, is a token."""
_addresses: set[str] = set()
_known: set[str] = set()
_users: set[str] = set()


def masked(address: str) -> str:
    """`address` without its user and password, and without its query.

    All before the last @ counts as user and password, since a password may hold any character.
    Where that may be the query as well, nothing is shown.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    login, _, place = rest.rpartition("@") if not _is_file(scheme) else ("", "", rest)
    if "?" in login:
        return f"{scheme}://{MASK}"
    place, question, query = place.partition("?")
    return f"{scheme}://{MASK + '@' if login else ''}{place}{question}{MASK if query else ''}"


def without_user(address: str) -> str:
    """`address` as another person can open it: without user, password and query."""
    return masked(address).partition("?")[0].replace(f"://{MASK}@", "://")


def remember(address: str) -> None:
    """Hide the secrets of `address` from now on, also where they stand alone."""
    scheme, separator, rest = address.partition("://")
    if not separator or _is_file(scheme):
        return
    _addresses.add(address)
    user, colon, password = rest.rpartition("@")[0].partition(":")
    if not colon and not NAME.fullmatch(user):  # a token
        user, password = "", user
    query = re.split("[&;]", rest.partition("?")[2])
    query += [part for one in query for part in unquote(one.partition("=")[2]).split(";")]
    named = [part.partition("=") for part in query]
    secret = [value for name, _, value in named if SECRET.search(name)]
    _known.update(v for value in [password, *secret] for v in _forms(value))
    _users.update(_forms(user))


def _forms(secret: str) -> list[str]:
    """A secret as typed and decoded; none if it is short."""
    return [form for form in (secret, unquote(secret)) if len(form) >= SHORTEST]


def hide(text: str) -> str:
    """`text` without the secrets of the addresses in it, and without those that are remembered."""
    for name, value in os.environ.items():
        if "://" in value and ("@" in value or "?" in value):
            remember(value)
        elif name in VARIABLES:
            _known.update(_forms(value))
    for address in _addresses:
        text = text.replace(address, masked(address))
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = ADDRESS.sub(lambda found: masked(found[1]) + found[2], text)
    for user in _users:  # a name may also be a word or a folder
        text = re.sub(rf"(?<![\w/.-]){re.escape(user)}(?![\w/.-])", MASK, text)
    return text


def _is_file(scheme: str) -> bool:
    """Whether what follows is a path, in which an @ is a letter: sqlite and file addresses."""
    return scheme.partition("+")[0] in ("sqlite", "file")
