"""The papers' phenomena as short runs: one script a phenomenon, named by what it shows, in reading order."""

if __name__ != "trainvitals.sample_runs":
    raise ImportError(
        "expected this package to be imported as 'trainvitals.sample_runs', it was imported as "
        f"{__name__!r}. Write 'import trainvitals.sample_runs' and leave the checkout's folder off sys.path."
    )
