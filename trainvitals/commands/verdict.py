"""`trainvitals verdict`: what is wrong with a run, since when, on what evidence, and what to try."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from trainvitals.commands.runs import Json, RunName, Store, opened
from trainvitals.commands.terminal import example, say, to_json, wrong_usage
from trainvitals.schema import Evidence, Status, Verdict, VerdictState

if TYPE_CHECKING:
    from trainvitals.alerts import Alert
    from trainvitals.run import Run

ALARM_EXIT = 3
_OVER = (Status.FINISHED, Status.CRASHED)


def verdict(
    run: RunName = "latest",
    store: Store = "runs/",
    json: Json = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until the run is over; tell of what changes.")] = False,
    every: Annotated[float, typer.Option(help="With --follow: seconds between two looks.", min=1)] = 5.0,
    desktop: Annotated[bool, typer.Option("--desktop", help="With --follow: notify the desktop of alarms.")] = False,
    webhook: Annotated[str, typer.Option(help="With --follow: POST alarms to this https address.")] = "",
    mail: Annotated[str, typer.Option(help="With --follow: mail alarms to this address.", metavar="ADDRESS")] = "",
    smtp: Annotated[str, typer.Option(help="Mail server, as [USER@]HOST[:PORT].")] = "",
) -> None:
    """Say what is wrong with a run, since when, on what evidence, and what to try. Exit code 3: an alarm."""
    if (desktop or webhook or mail) and not follow:
        wrong_usage("expected --follow with --desktop, --webhook or --mail, got none; alerts are for runs that go on")
    if bool(mail) != bool(smtp):
        wrong_usage("expected --mail and --smtp together, got one of them; name the reader and the mail server")
    with opened(run, store) as found:
        if follow:
            _follow(found, every, _alerts(desktop, webhook, mail, smtp), json)
        verdicts = found.verdicts()
        if json:
            print(to_json([dataclasses.asdict(v) for v in verdicts]))
        else:
            for line in report(found, verdicts):
                say(line)
    if any(v.state == VerdictState.ALARM for v in verdicts):
        raise typer.Exit(ALARM_EXIT)


def report(run: Run, verdicts: Sequence[Verdict]) -> Iterable[str]:
    """Give the lines of the report: alarms and things to watch in full, the rest in a line each."""
    step = "" if run.last_step is None else f", step {run.last_step}"
    yield f"{run.name} ({run.status}{step})"
    shown = [v for v in verdicts if v.state in (VerdictState.ALARM, VerdictState.WATCH)]
    for v in shown:
        yield from _in_full(v)
    if not shown:
        yield "Nothing is found to be wrong."
    healthy = [v.title for v in verdicts if v.state == VerdictState.HEALTHY and not v.covered_by]
    told = [f"{v.title} (with {v.covered_by})" for v in verdicts if v.covered_by]
    if told:
        yield f"No finding of their own, told above: {', '.join(told)}."
    if healthy:
        yield f"Healthy: {', '.join(healthy)}."
    for v in verdicts:
        if v.state == VerdictState.UNKNOWN:
            yield f"Unknown: {v.title} ({'; '.join(v.missing) or v.summary})."


def _in_full(v: Verdict) -> Iterable[str]:
    since = "" if v.since is None else f", since step {v.since:,}"
    noticed = "" if v.noticed in (None, v.since) else f" (enough evidence from step {v.noticed:,} on)"
    kind = "to know" if v.is_informational else str(v.state)
    yield f"{kind.upper()}: {v.title}{since}{noticed}, {100 * v.confidence:.0f} % sure"
    if v.relation:
        yield f"    {v.relation}"
    yield f"    {v.summary}"
    for e in v.evidence:
        yield f"    {'+' if e.holds else '-'} {_words(e)}"
    for a in v.advice:
        yield f"    try: {a.text} ({a.source})"
    if v.missing:
        yield f"    would tell more: {'; '.join(v.missing)}"


def _words(e: Evidence) -> str:
    of = f" of {e.key}" if e.key else ""
    origin = f"{e.metric}{of} at step {e.step:,}; {e.source}"
    if e.holds and e.sentence:
        return f"{e.sentence} ({origin})"
    side = e.comparison if e.holds else f"not {e.comparison}"
    return f"{e.quantity or e.words or e.metric} is {e.value:.4g}, {side} {e.threshold:.4g} ({origin})"


def _alerts(desktop: bool, webhook: str, mail: str, smtp: str) -> list[Alert]:
    from trainvitals.alerts import DesktopAlert, MailAlert, WebhookAlert

    found: list[Alert] = [DesktopAlert()] if desktop else []
    if webhook:
        found.append(WebhookAlert(webhook))
    if mail:
        user, _, address = smtp.rpartition("@")
        host, _, port = address.partition(":")
        if not host or (port and not port.isdigit()):
            wrong_usage(f"expected --smtp as [USER@]HOST[:PORT], got {address!r}; as in --smtp me@mail.example.org:587")
        found.append(MailAlert(mail, host, int(port or 587), user))
    return found


def _follow(run: Run, seconds: float, alerts: Sequence[Alert], quiet: bool) -> None:
    """Tell of every change until the run is over; then the report is printed as for any run."""
    from trainvitals.alerts.lookout import Lookout

    lookout = Lookout(run.verdicts, run.name, alerts=alerts, keep=True)
    tell: Callable[[str], None] = (lambda line: print(line, file=sys.stderr)) if quiet else say
    while True:
        is_over = run.status in _OVER  # before the look: what came with the end is seen by it
        lookout.look()
        for v in lookout.take():
            since = "" if v.since is None else f", since step {v.since}"
            tell(f"step {run.last_step}: {v.title}: {v.state}{since}")
        if is_over:
            return
        time.sleep(seconds)


COMMANDS = (
    (verdict, example(
        "trainvitals verdict latest",
        "trainvitals verdict digits-mlp --json",
        "trainvitals verdict latest --follow --desktop",
    )),
)  # fmt: skip
