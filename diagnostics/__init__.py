"""What is measured: tensors in, readings out. One idea a file; discovered, never listed by hand."""

if __name__ != "trainvitals.diagnostics":
    raise ImportError(
        "expected this package to be imported as 'trainvitals.diagnostics', it was imported as "
        f"{__name__!r}: a second copy would hold a second, empty registry. "
        "Write 'import trainvitals.diagnostics' and leave the checkout's folder off sys.path."
    )
