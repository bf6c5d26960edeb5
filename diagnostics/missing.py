"""Why a number is undefined here."""


class Missing(Exception):  # noqa: N818  (it is a reason, not a failure)
    """Raised by a diagnostic, or by what it reads, when a number is undefined here: the reason in words."""
