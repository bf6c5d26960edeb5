"""Run files into PostgreSQL: everything arrives once, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from servers import unused_port

from trainvitals.schema import Description, Event, Reading, Record, Status
from trainvitals.store import shipping
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_connection import AwayError
from trainvitals.store.postgres_schema import TABLES
from trainvitals.store.postgres_source import list_database, opening
from trainvitals.store.reader import RunReader
from trainvitals.store.shipping import Following, Shipper, follow
from trainvitals.store.writer import RunWriter

CHECKOUT = Path(__file__).parents[2]
HOSTILE = "'); DROP TABLE trainvitals.runs; -- %s %(x)s \\ \" \x00 \x1b[31m 名前"
QUICK = Following(poll_seconds=0.05, longest_pause_seconds=0.2, patience_seconds=60.0)


def record(step: int) -> Record:
    """A record of every kind of number: plain, not finite, arrays, missing, details, a name that is hostile."""
    readings = {
        "vector": Reading(np.array([step, np.nan, -np.inf]), np.ones(3), True, keys=("a", "b", HOSTILE)),
        "sometimes": Reading.absent(f"reason {step % 3} {HOSTILE}"),
        "top": Reading(1.0 / (step + 1), error=0.5, hvps=3, seconds=0.25, converged=False, details={"engine": HOSTILE}),
    }
    odd = {5: np.nan, 6: np.inf, 7: -0.0, 8: 5e-324}.get(step % 50, step * 0.1)
    scalars = {"loss": odd, "step": float(step), HOSTILE: 1.0}
    return Record(step, 1.7e9 + step, readings if step % 40 == 0 else {}, scalars)


def write(folder, num_steps: int, *, name: str = "run") -> RunWriter:
    words = Description("top", HOSTILE, "How sharp is it?", "An eigenvalue.")
    writer = RunWriter.create(folder, name, {"hostile": HOSTILE}, {"top": words})
    for step in range(num_steps):
        writer.append(record(step))
    writer.event(Event(3, 1.7e9, "warning", HOSTILE))
    writer.header("tags", ["a", HOSTILE])
    assert writer.flush(60)
    return writer


def ship(path, address: str) -> int:
    with Shipper(path, address) as shipper:
        return shipper.ship().num_rows


def clean(text: str) -> str:
    return text.replace("\0", "\\x00")


def assert_same(path, address: str, run_id: str) -> None:
    """Everything that a reader says of the database is what it says of the file."""
    here, there = RunReader(path), RunReader(opening(address, run_id))
    assert there.names() == sorted(clean(name) for name in here.names())
    assert [(e.step, e.kind, e.message) for e in there.events()] == [
        (e.step, e.kind, clean(e.message)) for e in here.events()
    ]
    assert there.descriptions() == here.descriptions()
    assert there.damage() == []
    for name in here.names():
        ours, theirs = here.series(name), there.series(clean(name))
        for part in ("seq", "step", "time", "value"):
            one, other = getattr(ours.points, part), getattr(theirs.points, part)
            assert one.tobytes() == other.tobytes(), (name, part)
        assert ours.error.tobytes() == theirs.error.tobytes()
        assert [v.seq for v in ours.vectors] == [v.seq for v in theirs.vectors]
        for one, other in zip(ours.vectors, theirs.vectors, strict=True):
            assert one.keys == other.keys  # JSON has room for a zero character
            np.testing.assert_array_equal(one.arrays["value"], other.arrays["value"])
        assert [(s, clean(r)) for s, _, r in here.missing(name)] == [(s, r) for s, _, r in there.missing(clean(name))]
        few, fewer = here.series(name, 1, None, max_points=50), there.series(clean(name), 1, None, max_points=50)
        assert few.points.value.tobytes() == fewer.points.value.tobytes()
    one, other = here.header(), there.header()
    assert (one.id, one.name, one.started, one.meta) == (other.id, other.name, other.started, other.meta)
    assert (one.last_step, one.num_records, one.num_points) == (other.last_step, other.num_records, other.num_points)
    assert one.tags == other.tags


def versions(address: str) -> dict[str, list[tuple]]:
    """Which version every row is of: the transaction that wrote it."""
    with psycopg.connect(address) as db:
        return {
            t.name: sorted(db.execute(f"SELECT {', '.join(t.key)}, xmin::text FROM trainvitals.{t.name}").fetchall())
            for t in TABLES
        }


@pytest.mark.parametrize("num_steps", [0, 1, 700, 9000])
def test_what_is_shipped_reads_as_the_file_does(tmp_path, address, num_steps):
    with write(tmp_path, num_steps) as writer, Shipper(writer.path, address) as shipper:
        shipper.ship()
        assert_same(writer.path, address, writer.id)
        assert RunReader(opening(address, writer.id)).header().status is Status.LIVE
        writer.append(record(num_steps))
        writer.close()
        assert shipper.ship().is_over
        assert_same(writer.path, address, writer.id)
        assert [run.status for run in list_database(address)] == [Status.FINISHED]


def test_shipping_again_changes_nothing(tmp_path, address):
    writer = write(tmp_path, 3000)
    writer.close()
    with Shipper(writer.path, address) as shipper:
        assert shipper.ship().num_rows > 0
    before = versions(address)
    with Shipper(writer.path, address) as shipper:
        assert shipper.ship().num_rows == 0
    with Shipper(writer.path, address) as forgetful:
        forgetful.ship()
        forgetful._shipped.last_ids, forgetful._shipped.chunks = {}, {}
        forgetful._shipped.hot, forgetful._shipped.progress = {}, ()
        assert forgetful.ship().num_rows == 0
    assert versions(address) == before


@pytest.mark.slow
def test_a_run_that_grows_is_shipped_piece_by_piece(tmp_path, address):
    writer = RunWriter.create(tmp_path, "grows", {}, {})
    rng = np.random.default_rng(0)
    step = 0
    with Shipper(writer.path, address) as shipper:
        for size in rng.integers(1, 1500, 12):
            for _ in range(size):
                writer.append(record(step))
                step += 1
            assert writer.flush(60)
            shipper.ship()
            assert_same(writer.path, address, writer.id)
        with psycopg.connect(address) as db:  # bodies that were replaced are gone
            orphans = db.execute(
                "SELECT count(*) FROM trainvitals.bodies WHERE NOT EXISTS "
                "(SELECT FROM trainvitals.chunks WHERE chunks.run = bodies.run AND chunks.body = id)"
            )
            assert orphans.fetchone() == (0,)
        writer.close()


@pytest.mark.parametrize("num_good", [0, 1, 3, 6, 9, 13, 20])
def test_a_shipper_that_dies_anywhere_is_taken_up_by_the_next(tmp_path, address, monkeypatch, num_good):
    writer = write(tmp_path, 6000)
    monkeypatch.setattr(shipping, "BATCH_ROWS", 10)
    good_put, calls = shipping.put, iter(range(10**9))

    def failing_put(*arguments):
        if next(calls) >= num_good:
            raise RuntimeError("killed here")
        return good_put(*arguments)

    monkeypatch.setattr(shipping, "put", failing_put)
    with pytest.raises(RuntimeError, match="killed here"):
        ship(writer.path, address)
    monkeypatch.setattr(shipping, "put", good_put)
    writer.append(record(6000))
    assert writer.flush(60)
    with Shipper(writer.path, address) as shipper:
        shipper.ship()
    assert_same(writer.path, address, writer.id)
    writer.close()


@pytest.mark.slow
def test_two_shippers_of_one_run_do_no_harm(tmp_path, address):
    writer = write(tmp_path, 4000)
    threads = [threading.Thread(target=follow, args=(writer.path, address, QUICK)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(4000, 8000):
        writer.append(record(step))
    writer.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert_same(writer.path, address, writer.id)


def test_several_runs_at_once_stay_apart(tmp_path, address):
    writers = [write(tmp_path, 1500 + rank, name=f"rank-{rank}") for rank in range(4)]
    threads = [threading.Thread(target=follow, args=(w.path, address, QUICK)) for w in writers]
    for thread in threads:
        thread.start()
    for writer in writers:
        writer.append(record(5000))
        writer.close()
    for thread, writer in zip(threads, writers, strict=True):
        thread.join(60)
        assert_same(writer.path, address, writer.id)
    assert len(list_database(address)) == 4


def test_one_id_for_two_runs_is_refused(tmp_path, address):
    writer = write(tmp_path, 3)
    ship(writer.path, address)
    writer.header("started", 1.0)
    writer.flush()
    with pytest.raises(StoreError, match="that began at another time"):
        ship(writer.path, address)
    writer.close()


KILLED = """
import os, signal, sys, time
from trainvitals.schema import Record
from trainvitals.store.writer import RunWriter
writer = RunWriter.create(sys.argv[1], "killed", {}, {})
for step in range(5000):
    writer.append(Record(step, time.time(), {}, {"loss": float(step)}))
assert writer.flush(60)
print(writer.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_trainer_that_was_killed_is_shipped_to_the_last_point_and_called_crashed(tmp_path, address):
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], capture_output=True,
                          text=True, env=environment, timeout=60, check=False)  # fmt: skip
    path = Path(done.stdout.strip())
    assert follow(path, address, QUICK)
    (run,) = list_database(address)
    assert run.status is Status.CRASHED
    assert len(RunReader(opening(address, run.id)).series("loss").points) == 5000


def test_a_run_not_heard_of_for_long_is_stalled_by_the_servers_clock(tmp_path, address):
    writer = write(tmp_path, 3)
    ship(writer.path, address)
    with psycopg.connect(address) as db:
        elsewhere = '{"host": "another-machine", "pid": 1, "started": 0, "namespace": ""}'
        db.execute("UPDATE trainvitals.header SET value = %s WHERE key = 'process'", (elsewhere,))
    assert RunReader(opening(address, writer.id)).header().status is Status.LIVE
    with psycopg.connect(address) as db:
        db.execute("UPDATE trainvitals.runs SET received = received - interval '31 s'")
    assert RunReader(opening(address, writer.id)).header().status is Status.STALLED
    writer.close()


# ---- outages


class Proxy:
    """A line to the server that can be cut: silently (nothing arrives any more) or with an end of every connection."""

    def __init__(self, server) -> None:
        self.port = unused_port()
        self._target = ("127.0.0.1", int(server.port))
        self._is_open = threading.Event()
        self._is_open.set()
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", int(self.port)))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._is_open.is_set():
                client.close()
                continue
            upstream = socket.create_connection(self._target)
            self._pairs += [client, upstream]
            for one, other in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for side in (one, other):
            side.close()

    def cut(self) -> None:
        self._is_open.clear()
        for side in self._pairs:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def mend(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self.cut()
        self._listener.close()


def under_load(tmp_path, address: str, trouble, num_steps: int, seconds: float):
    """Train and ship while `trouble(at)` happens at each tenth of the way; return the writer and the troubles told."""
    writer = RunWriter.create(tmp_path, "load", {}, {})
    told: list[str] = []
    outcome: list[bool] = []
    thread = threading.Thread(target=lambda: outcome.append(follow(writer.path, address, QUICK, told.append)))
    thread.start()
    slowest = 0.0
    for step in range(num_steps):
        if step % (num_steps // 10) == 0:
            trouble(step // (num_steps // 10))
        start = time.perf_counter()
        writer.append(record(step))
        slowest = max(slowest, time.perf_counter() - start)
        time.sleep(seconds / num_steps)
    writer.close()
    assert writer.num_dropped == 0
    thread.join(120)
    assert outcome == [True]
    return writer, told


def test_a_line_that_is_cut_again_and_again_loses_nothing(tmp_path, server, address):
    proxy = Proxy(server)
    through = address.replace(f":{server.port}/", f":{proxy.port}/")
    writer, told = under_load(tmp_path, through, lambda at: proxy.cut() if at % 3 == 1 else proxy.mend(), 2000, 2.0)
    proxy.close()
    assert told
    assert all(server.password not in text for text in told)
    assert_same(writer.path, address, writer.id)


@pytest.mark.slow
def test_a_server_that_crashes_and_comes_back_after_half_a_minute_under_load_loses_nothing(tmp_path, server, address):
    times = {}

    def trouble(at: int) -> None:
        if at == 2:
            server.stop("immediate")  # as a crash: it recovers from its log
            times["away"] = time.monotonic()
        if at == 9:
            assert time.monotonic() - times["away"] >= 30
            server.start()

    writer, told = under_load(tmp_path, address, trouble, 4500, 45.0)
    assert told
    assert_same(writer.path, address, writer.id)


@pytest.mark.slow
def test_a_restart_under_load_loses_nothing(tmp_path, server, address):
    def trouble(at: int) -> None:
        if at in (3, 6):
            server.stop("immediate")
            server.start()

    writer, _ = under_load(tmp_path, address, trouble, 2000, 1.0)
    assert_same(writer.path, address, writer.id)


def test_patience_ends_when_the_run_is_over_and_the_database_stays_away(tmp_path):
    writer = write(tmp_path, 3)
    writer.close()
    nobody = f"postgresql://ann:s3cret@127.0.0.1:{unused_port()}/runs"
    told: list[str] = []
    assert not follow(writer.path, nobody, Following(0.01, 0.02, 0.1), told.append)
    assert len(told) == 1
    assert "s3cret" not in told[0]
    with pytest.raises(AwayError):
        ship(writer.path, nobody)
