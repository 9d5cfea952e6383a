"""The door against its own OpenAPI schema: whatever is sent, the answer is one that the schema promises.

Requests are drawn from the schema (`GET /openapi.json`), most of them bent somewhere: other types, other methods,
bodies that are no JSON, tokens that are none. Never a 5xx; never a status that the operation does not declare; never
an answer that does not match its schema.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedunlearn.requests import LIVE_BRANCH, Ledger
from tests.door.served import CLIENTS, Caller, place, served

EVERYWHERE = {
    401,
    403,
    404,
    405,
    408,
    413,
    422,
    429,
    431,
}  # of paths and methods that the schema does not know
METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW")
LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

ODD = st.text(max_size=30).map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""))
KNOWN = st.sampled_from([("who", who) for who in ("alice", "alice", "3", "3", "4", "eye")] * 2 + [None])
TOKENS = st.one_of(*[KNOWN] * 9, st.tuples(st.just("raw"), LATIN))
TOO_LONG = b" " * 70_000
KINDS = ("application/json",) * 6 + ("text/plain", "application/x-json; charset=x", "")


def to_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes
    ----------
    template : str or None
        The schema's path that it is for; None where it went astray.
    token : tuple or None
        ("who", a name of the roster), ("raw", what is sent as a token), or None for a stranger.
    """

    method: str
    path: str
    template: str | None
    token: tuple[str, str] | None
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


class Schema:
    """The OpenAPI document as a source of requests and a judge of answers."""

    def __init__(self, document: Mapping[str, Any], ids: list[str]) -> None:
        self.document = document
        self.ids = ids

    def values(self, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
        """Values that a schema allows: the keywords that the door's schema uses, and no others."""
        if "$ref" in schema:
            return self.values(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return st.one_of([self.values(one) for one in schema["anyOf"]])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kind = schema.get("type")
        if kind == "integer":
            low, high = (
                schema.get("minimum", -5),
                schema.get("maximum", schema.get("exclusiveMaximum", 99) - 1),
            )
            return st.integers(low, min(high, low + CLIENTS + 2)) | st.integers(low, high)
        if kind == "number":
            low, high = schema["exclusiveMinimum"], schema["maximum"]
            return st.floats(low, high, exclude_min=True) | st.sampled_from([0.5, high])
        if kind == "object" and "properties" not in schema:
            (rows,) = schema.get("patternProperties", {"": schema.get("additionalProperties")}).values()
            return st.dictionaries(st.sampled_from("037"), self.values(rows), max_size=2)
        if kind == "string":
            return st.text("abckey-123", min_size=schema.get("minLength", 0), max_size=8)
        if kind == "array":
            least, most = schema.get("minItems", 0), min(3, schema.get("maxItems", 3))
            return st.lists(self.values(schema["items"]), min_size=least, max_size=most)
        if kind == "object":
            fields = {name: self.values(one) for name, one in schema["properties"].items()}
            return st.fixed_dictionaries(fields)
        if kind == "null":
            return st.none()
        raise AssertionError(f"the fuzzer does not know {schema}")

    def cases(self) -> st.SearchStrategy[Case]:
        """Requests: mostly as the schema wants them, bent here and there."""
        right = [
            self._of(path, method, operation)
            for path, operations in self.document["paths"].items()
            for method, operation in operations.items()
        ]
        astray = st.builds(
            Case,
            method=st.sampled_from(METHODS),
            path=st.sampled_from([*self.document["paths"], "/requests/"]) | ODD.map("/{}".format),
            template=st.none(),
            token=TOKENS,
            headers=st.just(()),
            body=st.none() | st.binary(max_size=60),
        )
        return st.one_of(*right, *right, astray)

    def _of(self, template: str, method: str, operation: Mapping[str, Any]) -> st.SearchStrategy[Case]:
        query, headers = [], []
        for parameter in operation.get("parameters", ()):
            bent = (
                LATIN if parameter["in"] == "header" else SCALARS
            )  # what a header cannot hold never gets here
            value = st.one_of(*[self.values(parameter["schema"])] * 4, bent)
            pair = st.tuples(st.just(parameter["name"]), value)
            if parameter["in"] != "path":
                (query if parameter["in"] == "query" else headers).append(st.lists(pair, max_size=1))
        bodies = st.none()
        if "requestBody" in operation:
            good = self.values(self.document["components"]["schemas"]["Ask"]).map(to_bytes)
            bodies = st.one_of(
                good, good, good, JSON.map(to_bytes), st.binary(max_size=60), st.just(TOO_LONG)
            )
            headers.append(st.sampled_from([[("Content-Type", kind)] for kind in KINDS]))
        ids = st.sampled_from(self.ids)

        def case(id_: str, query: Any, token: Any, headers: Any, body: Any) -> Case:
            asked = [(name, one) for ((name, value),) in filter(None, query) for one in listed(value)]
            path = template.replace("{request_id}", id_)
            path += f"?{urlencode(asked, errors='surrogatepass')}" if asked else ""
            sent = tuple((name, str(value)) for ((name, value),) in filter(None, headers))
            return Case(method.upper(), path, template, token, sent, body)

        return st.builds(case, ids | ids | ODD, st.tuples(*query), TOKENS, st.tuples(*headers), bodies)

    def judge(self, case: Case, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Hold an answer against the schema."""
        assert status < 500, (status, body)
        operation = self.document["paths"].get(case.template or case.path, {}).get(case.method.lower())
        declared = operation["responses"] if operation else {}
        if operation is None:
            assert status in EVERYWHERE, status
            declared = {str(status): self.document["paths"]["/requests"]["get"]["responses"]["401"]}
        assert str(status) in declared, (status, sorted(declared))
        if case.method == "HEAD":
            assert body == b""
            return
        (kind, content) = next(iter(declared[str(status)]["content"].items()))
        assert headers["Content-Type"].partition(";")[0] == kind
        if kind == "application/json" and content["schema"]:
            components = {"components": self.document["components"]}
            jsonschema.validate(json.loads(body), {**content["schema"], **components})
        for name in declared[str(status)].get("headers", {}):
            assert int(headers[name]) >= 1


@pytest.fixture(scope="module")
def target() -> Iterator[tuple[Caller, Schema]]:
    """A door over requests in several states. In memory where there is such a folder: thousands of commits."""
    memory = Path("/dev/shm")
    folder = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as made:
        at = place(Path(made))
        with served(at) as knock:
            ids = ["r0000000000000000"]
            for clients in ([3], [3], [4], [3, 4], [5]):
                answer = knock("POST", "/requests", "alice", {"clients": clients})
                ids.append(answer.json["request_id"])
            knock("DELETE", f"/requests/{ids[2]}", "alice")
            with Ledger(at.folder / "requests.sqlite") as ledger:
                ledger.commit_plan(LIVE_BRANCH, 1, {"requests": [ids[3]]})
            yield knock, Schema(knock("GET", "/openapi.json").json, ids)


def fuzz(target: tuple[Caller, Schema], examples: int) -> Counter[int]:
    """Send so many requests, on connections that are kept as long as they last; return the statuses seen."""
    knock, schema = target
    seen: Counter[int] = Counter()
    connections: list[http.client.HTTPConnection] = []

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(schema.cases())
    def send(case: Case) -> None:
        headers = dict(case.headers)
        if case.token is not None:
            kind, value = case.token
            headers["Authorization"] = f"Bearer {knock.tokens[value] if kind == 'who' else value}"
        encoded = {name: value.encode("latin-1", "replace") for name, value in headers.items()}
        while True:
            kept = bool(connections)
            connection = connections.pop() if kept else http.client.HTTPConnection(*knock.address, timeout=30)
            try:
                connection.request(case.method, case.path, case.body, encoded)
                answer = connection.getresponse()
                break
            except ConnectionError:
                connection.close()
                if not kept:  # one that was kept may have been idle for too long
                    raise
        body = answer.read()
        if answer.will_close:
            connection.close()
        else:
            connections.append(connection)
        seen[answer.status] += 1
        schema.judge(case, answer.status, answer.headers, body)

    try:
        send()
    finally:
        for connection in connections:
            connection.close()
    return seen


@pytest.mark.slow
def test_a_few_requests_of_every_kind(target) -> None:
    seen = fuzz(target, 300)
    assert {200, 202, 401, 403, 404, 422} <= set(seen)


@pytest.mark.slow
def test_five_thousand_requests_of_every_kind(target) -> None:
    seen = fuzz(target, 5200)
    assert seen.total() >= 5000
    assert {200, 202, 401, 403, 404, 405, 409, 413, 422} <= set(seen), seen
    knock, _ = target
    assert knock("GET", "/health").json == {"status": "ok", "problems": []}


def test_the_judge_finds_what_the_schema_does_not_promise(target) -> None:
    _, schema = target
    case = Case("GET", "/requests", "/requests", None, (), None)
    fine = {"Content-Type": "application/json", "Retry-After": "2"}
    schema.judge(case, 200, fine, b'{"requests": [], "next": null}')
    schema.judge(case, 429, fine, b'{"error": "slowly"}')
    for status, headers, body in (
        (500, fine, b'{"error": "x"}'),
        (202, fine, b'{"error": "x"}'),
        (409, fine, b'{"error": "x"}'),
        (200, fine, b'{"requests": []}'),
        (200, {"Content-Type": "text/html"}, b'{"requests": [], "next": null}'),
        (429, {"Content-Type": "application/json"}, b'{"error": "x"}'),
        (401, fine, b'{"detail": "x"}'),
    ):
        with pytest.raises((AssertionError, KeyError, jsonschema.ValidationError)):
            schema.judge(case, status, headers, body)
