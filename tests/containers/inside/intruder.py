"""Runs inside a client's container: everything that a client might try against the server's proxy. Prints JSON."""

import json
import socket
import ssl
import sys
from http.client import HTTPSConnection

import httpx
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.routers.runtime.responses import router as responses
from flwr.supercore.routers.runtime.router import router as runtime
from flwr.superlink.routers.control.router import router as control
from flwr.supernode.fleet_http_client import FleetHttpClient

CONTEXT = ssl.create_default_context(cafile="/keys/trust/ca.crt")


def raw(method: str, path: str) -> int:
    connection = HTTPSConnection("fleet", 8443, context=CONTEXT, timeout=30)
    try:
        connection.request(method, path, b"", {"content-type": "application/x-protobuf"})
        return connection.getresponse().status
    finally:
        connection.close()


def call(kind: type[ProtobufClient], name: str, request: object) -> int:
    """Call one of Flower's APIs with Flower's own client."""
    client = kind.from_server_address("fleet:8443", False, "/keys/trust/ca.crt", interceptors=[])
    try:
        getattr(client, name)(request)
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    finally:
        client.close()
    return 200


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


refused = [route.path for router in (control, runtime, responses) for route in router.routes]
tricks = [
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "//v1/control/start-run",
    "/v1/control/start-run?/v1/fleet/pull-messages",
    "/docs",
    "/openapi.json",
    "/health",
    "/",
]
print(
    json.dumps(
        {
            "start-run": call(ControlHttpClient, "StartRun", StartRunRequest()),
            "register-node": call(ControlHttpClient, "RegisterNode", RegisterNodeRequest(public_key=b"x")),
            "paths": {path: raw("POST", path) for path in [*refused, *tricks]},
            "get": raw("GET", "/v1/fleet/pull-messages"),
            "unsigned": call(FleetHttpClient, "PullMessages", PullMessagesRequest()),
            "superlink": reaches(sys.argv[1], 8000),
            "proxy": reaches("fleet", 8443),
        }
    )
)
