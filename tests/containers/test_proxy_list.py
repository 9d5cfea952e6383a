"""What the reverse proxy lets through, held against Flower's own routes and Flower's own client."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from flwr.supercore.routers.runtime.responses import router as responses
from flwr.supercore.routers.runtime.router import router as runtime
from flwr.superlink.routers.control.router import router as control
from flwr.superlink.routers.fleet.router import router as fleet
from flwr.supernode import fleet_http_client

CONF = (Path(__file__).parents[2] / "deploy" / "proxy.conf").read_text()
(LOCATION,) = re.findall(r"location ~ (\S+) \{", CONF)
SELF_REGISTRATION = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}


def allowed(path: str) -> bool:
    return re.search(LOCATION, path) is not None


def test_every_fleet_call_but_self_registration_passes() -> None:
    paths = {route.path for route in fleet.routes}
    assert {path for path in paths if allowed(path)} == paths - SELF_REGISTRATION


def test_every_call_that_a_supernode_makes_is_one_of_flowers_fleet_calls() -> None:
    tree = ast.parse(inspect.getsource(fleet_http_client))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    called = {text for text in texts if isinstance(text, str) and text.startswith("/v1/")}
    assert called == {route.path for route in fleet.routes}


def test_no_call_of_the_control_and_runtime_apis_passes() -> None:
    paths = [route.path for router in (control, runtime, responses) for route in router.routes]
    assert len(paths) > 60
    assert not [path for path in paths if allowed(path)]


def test_nothing_that_only_begins_or_ends_like_a_fleet_call_passes() -> None:
    for path in (
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/pull-messagesx",
        "/x/v1/fleet/pull-messages",
        "/v1/fleet/",
        "/v1/fleet/pull-messages\n/v1/control/start-run",
    ):
        assert not allowed(path), path


def test_what_is_passed_on_is_the_path_that_was_matched() -> None:
    """nginx matches the normalised path; without ``$uri`` it would pass on the request's own spelling of it."""
    assert re.findall(r"proxy_pass (\S+);", CONF) == ["https://$superlink$uri"]


def test_everything_else_is_refused() -> None:
    assert re.search(r"location / \{\s*return 403;", CONF)
    assert len(re.findall(r"^\s*proxy_pass", CONF, re.M)) == 1
