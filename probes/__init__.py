"""How a running model is watched: captures what the diagnostics need and changes nothing."""

if __name__ != "trainvitals.probes":
    raise ImportError(
        "expected this package to be imported as 'trainvitals.probes', it was imported as "
        f"{__name__!r}: a second copy would hold a second, empty registry. "
        "Write 'import trainvitals.probes' and leave the checkout's folder off sys.path."
    )
