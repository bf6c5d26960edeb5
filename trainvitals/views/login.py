"""The door of a dashboard that others can reach: nothing of a run is read before the reader is known and allowed.

The login is Streamlit's own (OpenID Connect). Who is allowed stands in the same file as the provider.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from trainvitals.views.words import plain

VARIABLE = "TRAINVITALS_AUTH"  # set by `trainvitals ui --auth`: without a login nothing is shown
EVERYBODY = "*"


def is_allowed(user: Mapping[str, Any], allow: Sequence[str]) -> bool:
    """Tell whether somebody who has logged in may see the runs.

    An address counts only if the provider says that it has verified it.

    Args:
        user: the claims of the identity token.
        allow: addresses, `*@domain`, or `*` for everybody who can log in at the provider.

    >>> ada = {"email": "Ada@Example.org", "email_verified": True}
    >>> is_allowed(ada, ["ada@example.org"]), is_allowed(ada, ["*@example.org"]), is_allowed(ada, ["bob@example.org"])
    (True, True, False)
    >>> is_allowed({"email": "ada@example.org"}, ["ada@example.org"]), is_allowed({}, ["*"])
    (False, True)
    """
    if EVERYBODY in allow:
        return True
    email = user.get("email")
    if not isinstance(email, str) or email.count("@") != 1 or user.get("email_verified") is not True:
        return False
    address = email.casefold()
    wanted = {word.casefold() for word in allow}
    return address in wanted or f"*@{address.split('@')[1]}" in wanted


def door() -> None:
    """Let a reader pass who is known and allowed; show the others a button, and stop."""
    user = dict(st.user)
    if "is_logged_in" not in user:
        if os.environ.get(VARIABLE):
            st.error("This dashboard asks for a login, and the file with its provider cannot be read.")
            st.stop()
        return  # on this machine alone
    if not user["is_logged_in"]:
        st.title("TrainVitals", anchor=False)
        st.write("The runs of this dashboard are shown after a login.")
        st.button("Log in", type="primary", on_click=st.login)
        st.stop()
    if not is_allowed(user, _allowed()):
        st.title("TrainVitals", anchor=False)
        name = user.get("email") or user.get("name") or user.get("sub")
        st.error(f"{plain(name)} is logged in, and is not among those who may see this dashboard.")
        st.button("Log out", on_click=st.logout)
        st.stop()


def leave() -> None:
    """Show who is logged in, and the way out, in the sidebar."""
    user = dict(st.user)
    if user.get("is_logged_in"):
        st.caption(plain(user.get("email") or user.get("name") or user.get("sub")))
        st.button("Log out", on_click=st.logout, key="log-out")


def _allowed() -> Sequence[str]:
    section = st.secrets.get("trainvitals") or {}
    return [str(word) for word in section.get("allow") or ()]
