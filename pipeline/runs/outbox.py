"""Outbox of a run on an MLflow server: what is written to the run, kept until the server has it.

Requests are appended to the file unsent/RUN_ID.jsonl and sent in order by a thread, those of a few
seconds as one, so a training never waits for the server. What a process could not send is sent by
the next one in this folder.
MLflow keeps one copy of a point that is sent twice, and takes points after the end of a run.
"""

import fcntl
import json
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from pipeline import secrets
from pipeline.errors import InputError, one_line
from pipeline.runs import signals

FOLDER = Path("unsent")
ANSWER = 5.0
"""Seconds that a request waits for its answer."""
PAUSE = 2.0
"""Seconds between two tries."""
GATHERING = 5.0
"""Seconds for which a request waits for others, which are sent as one, unless they are wanted."""
TOGETHER = 1024
"""Most requests that are sent as one."""
MOST = {"metrics": 800, "tags": 100}
"""Most entries of each kind in one request; MLflow takes 1,000 in all."""
END = 10.0
"""Seconds for which the end of a run waits until everything is sent."""
OUTAGE = 900.0
"""Seconds for which what needs the server (the start of a run, a model) waits for it."""
TRANSIENT = {401, 403, 404, 408, 429}
"""Statuses below 500 that a proxy, or a server that starts, may answer for a while."""

Request = tuple[str, dict[str, Any]]
"""An endpoint of MLflow's REST interface, and the body."""


def server() -> str | None:
    """Address of the MLflow server in use; None if the store is a database of this process."""
    uri = mlflow.get_tracking_uri()
    return uri if uri.startswith(("http://", "https://")) else None


class Outbox:
    """The requests of one run that its server has not taken yet, in memory and in a file.

    The file is locked while this process lives, so that no other one sends it.
    """

    def __init__(self, run_id: str, address: str) -> None:
        self.had_outage = False
        self._run, self._address = run_id, address
        self._pending: deque[Request] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        """Threads that wait for everything to be sent."""
        self._is_closed = False
        FOLDER.mkdir(exist_ok=True)
        self._path = FOLDER / f"{run_id}.jsonl"
        self._file = self._path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._append({"server": secrets.without_user(address)})
        self._header = self._file.tell()
        threading.Thread(target=self._send_all, daemon=True).start()

    def log(
        self,
        metrics: Sequence[dict[str, Any]] = (),
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Send points (key, value, timestamp, step) and tags."""
        points = [one | {"value": _number(one["value"])} for one in metrics]
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        self._put("log-batch", metrics=points, tags=pairs)

    def update(self, **values: object) -> None:
        """Change the run's run_name, or its status and end_time."""
        self._put("update", **values)

    def flush(self, seconds: float) -> bool:
        """Wait until everything is sent, `seconds` at most; whether it is."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._pending, seconds)
            finally:
                self._waiting -= 1

    def require_sent(self, seconds: float) -> None:
        """Wait as `flush` does. Raises InputError if the server does not take it all."""
        if not self.flush(seconds):
            raise InputError(f"{self._address} does not answer; {self._kept()}")

    def close(self) -> None:
        """End the thread. The file is deleted, unless there is something left in it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            if not self._pending:
                self._path.unlink(missing_ok=True)
            with suppress(OSError):
                self._file.close()
        if self._pending:
            _say(f"{self._address} does not answer; {self._kept()}")

    def _kept(self) -> str:
        return f"what it has not taken is in {self._path}, and is sent by the next command here"

    def _put(self, endpoint: str, **body: object) -> None:
        request = (endpoint, {"run_id": self._run, **body})
        with signals.defer_interrupts(), self._changed:
            self._append(request)
            self._pending.append(request)
            self._changed.notify_all()

    def _append(self, entry: object) -> None:
        # Without room on the disk the requests are still in memory.
        with suppress(OSError):
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _send_all(self) -> None:
        """Main function of the thread.

        What the server did not answer, or refused, is tried again in halves, so that a slow server
        takes it, and of what goes as one only the part that is bad is refused.
        """
        most = TOGETHER
        while following := self._next(most):
            count, together = following
            taken, refusal = _send(self._address, together)
            is_halved = count > 1 and (refusal or not taken)
            most = count // 2 if is_halved else min(2 * most, TOGETHER)
            if not taken:
                self._pause()
            elif count == 1 or not refusal:
                self._remove(count)
                if refusal:
                    _say(refusal)

    def _next(self, most: int) -> tuple[int, Request] | None:
        """How many of the pending requests go as one, and these as one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_closed)
            if most == TOGETHER:
                self._changed.wait_for(lambda: self._waiting or self._is_closed, GATHERING)
            return None if self._is_closed else _first(list(self._pending)[:most])

    def _remove(self, count: int) -> None:
        """Remove the first requests, which were sent."""
        with self._changed:
            for _ in range(count):
                self._pending.popleft()
            if not self._pending and not self._is_closed:
                self._file.truncate(self._header)
            self._changed.notify_all()

    def _pause(self) -> None:
        """Wait after a try that failed; the first one is told."""
        if not self.had_outage:
            self.had_outage = True
            _say(
                f"{self._address} does not answer; the training goes on, and its epochs are "
                f"kept in {self._path}"
            )
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, PAUSE)


def is_reachable() -> bool:
    """Whether the server in use answers within `ANSWER` seconds; True for a database."""
    address = server()
    return address is None or _post(address, "experiments/search", {"max_results": 1}) is not None


def wait(give_up: Callable[[], bool] = signals.was_interrupted) -> bool:
    """Wait while the server in use does not answer; False if `give_up()` came before it.

    Raises InputError after `OUTAGE` seconds. True at once for a database.
    """
    deadline = time.monotonic() + OUTAGE
    is_told = False
    while not is_reachable():
        if give_up():
            return False
        if time.monotonic() > deadline:
            raise InputError(f"{server()} has not answered for {OUTAGE / 60:.0f} minutes")
        if not is_told:
            is_told = True
            _say(f"{server()} does not answer; waiting {OUTAGE / 60:.0f} minutes for it")
        time.sleep(PAUSE)
    return True


def send_left() -> None:
    """Send what processes of this folder that are gone have left for the server in use.

    Waits for the server if there is something. Raises InputError as `wait` does.
    """
    address = server()
    if address is None or not FOLDER.is_dir():
        return
    for path in sorted(FOLDER.glob("*.jsonl")):
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = _requests(file.read(), secrets.without_user(address))
            if left is None:
                continue
            for request in left:
                taken, refusal = _send(address, request)
                if not taken and wait():
                    taken, refusal = _send(address, request)
                if not taken:
                    return  # interrupted, or refused as the command's own requests will be
                if refusal:
                    _say(refusal)
            path.unlink()


@contextmanager
def impatient() -> Iterator[None]:
    """Let MLflow's client, in all threads, try once for `ANSWER` seconds within the block."""
    short = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(ANSWER)),
    }
    before = {name: os.environ.get(name) for name in short}
    os.environ.update(short)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _first(pending: Iterable[Request]) -> tuple[int, Request]:
    """How many of the first requests MLflow takes as one, and these as one."""
    found: Request | None = None
    count = 0
    for endpoint, body in pending:
        if found is None:
            found = (endpoint, body)
        elif endpoint == found[0] == "log-batch":
            both = {kind: [*found[1].get(kind, []), *body.get(kind, [])] for kind in MOST}
            both["tags"] = list({tag["key"]: tag for tag in both["tags"]}.values())
            if any(len(both[kind]) > most for kind, most in MOST.items()):
                break
            found = (endpoint, body | both)
        else:
            break
        count += 1
    if found is None:
        raise ValueError("no request")
    return count, found


def _requests(content: bytes, address: str) -> list[Request] | None:
    """The requests in a file; None for one of another server, or whose process has just begun."""
    found = []
    for line in content.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the last line of a process that was killed while it wrote
            break
    if not found or found[0] != {"server": address}:
        return None
    return [(endpoint, body) for endpoint, body in found[1:]]


def _send(address: str, request: Request) -> tuple[bool, str]:
    """Whether the server has taken a request, or refused it for good, and what to tell of that."""
    response = _post(address, f"runs/{request[0]}", request[1])
    if response is None or (response.status_code in TRANSIENT and not _is_missing(response)):
        return False, ""
    if response.status_code < 400:
        return True, ""
    text = " ".join(response.text.split())[:150]
    return True, f"{address} refused a part of run {request[1]['run_id']} ({text})"


def _is_missing(response: Any) -> bool:
    """Whether MLflow itself says that there is no such run."""
    return "RESOURCE_DOES_NOT_EXIST" in response.text


def _post(address: str, endpoint: str, body: dict[str, Any]) -> Any:
    """The response to a request; None if there is none, or one of a server that has failed."""
    try:
        response = http_request(
            get_default_host_creds(address), f"/api/2.0/mlflow/{endpoint}", "POST",
            max_retries=0, timeout=ANSWER, raise_on_status=False, json=body,
        )  # fmt: skip
    except MlflowException:
        return None
    return None if response.status_code >= 500 else response


def _say(text: str) -> None:
    print(one_line(text), file=sys.stderr)


def _number(value: float) -> float | str:
    """A number as JSON has it: those that are not finite are strings."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
