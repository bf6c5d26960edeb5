"""Whether the reader looks: a browser tab in the background says so, and its page asks for nothing more.

Streamlit (1.67) goes on asking for fragments from a hidden tab. A few lines of JavaScript in the page tell the server
when the tab is hidden and when it is seen again; nothing else of the browser is sent.
"""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.components.v2 import component

KEY = "tab"
HIDDEN_MS = 2000  # a glance at another tab does not count
SCRIPT = """
export default function ({ data, setStateValue }) {
  let timer = null;
  const changed = () => {
    clearTimeout(timer);
    if (document.hidden && !data.hidden) timer = setTimeout(() => setStateValue("hidden", true), data.wait);
    if (!document.hidden && data.hidden) setStateValue("hidden", false);
  };
  document.addEventListener("visibilitychange", changed);
  changed();
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", changed);
  };
}
"""  # constant: nothing of a run ever goes in here

_component = component("trainvitals_tab", js=SCRIPT)


def watch_tab() -> None:
    """Put the listener into the page; it shows nothing."""
    _component(key=KEY, data={"hidden": is_hidden(), "wait": HIDDEN_MS}, default={"hidden": False},
               on_hidden_change=_heard, height=1)  # fmt: skip


def is_hidden() -> bool:
    """Whether the tab was last said to be in the background."""
    state: Any = st.session_state.get(KEY)
    return bool(state and state.get("hidden"))


def paced(seconds: float | None) -> float | None:
    """Return the seconds between two refreshes of a fragment: None, no refresh, while nobody looks."""
    return None if is_hidden() else seconds


def _heard() -> None:
    """Do nothing: the page is drawn again anyway, with or without refreshes. A component's state needs a callback."""
