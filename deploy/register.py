"""Makes clients known to the server: their SuperNodes' keys to the SuperLink, their numbers and tokens to the roster.

Reads ``client-<number>.pub`` of every client from ``/keys/public``; whoever is known already stays as they are, so
that it can run again with every client that joins. Tokens for the door are written once, into ``/keys/operator``:
hand them over and delete them, the roster keeps only their hashes.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.cli.flower_config import read_superlink_connection
from flwr.cli.utils import init_http_client_from_connection
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from keys import leave_token

from fedunlearn.deployment.roster import ClientEntry, Roster, canonical_key
from fedunlearn.deployment.roster_file import edit

PUBLIC_KEYS = Path("/keys/public")
TOKENS = Path("/keys/operator")
ROSTER = Path("/roster/roster.toml")


def main() -> None:
    """Register every client whose public key is there."""
    keys = {}
    for path in sorted(PUBLIC_KEYS.glob("client-*.pub")):
        if match := re.fullmatch(r"client-(\d+)", path.stem):
            keys[int(match[1])] = canonical_key(path.read_text(encoding="utf-8"))
    if not keys:
        sys.exit(
            f"{PUBLIC_KEYS}: no client-<number>.pub; ask every client for the public key of its SuperNode"
        )
    nodes = register(keys)
    edit(ROSTER, lambda roster: _with(roster, keys, nodes))
    for number, node in sorted(nodes.items()):
        print(f"client {number}: node {node}")


def register(keys: dict[int, str]) -> dict[int, int]:
    """Register SuperNodes' public keys (OpenSSH text), and return the node id of every client."""
    client = init_http_client_from_connection(read_superlink_connection("federation"))
    try:
        known = _nodes(client)
        for number, key in keys.items():
            if key not in known:
                public = public_key_to_bytes(
                    load_ssh_public_key(key.encode())
                )  # as `flwr supernode register` does
                client.RegisterNode(RegisterNodeRequest(public_key=public, name=f"client-{number}"))
        known = _nodes(client)
        return {number: known[key] for number, key in keys.items()}
    finally:
        client.close()


def _nodes(client: ControlHttpClient) -> dict[str, int]:
    """Return the ids of all registered nodes by public key."""
    nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return {
        canonical_key(node.public_key.decode()): node.node_id for node in nodes if not node.unregistered_at
    }


def _with(roster: Roster, keys: dict[int, str], nodes: dict[int, int]) -> Roster:
    for number, key in keys.items():
        entry = roster.client(number) or ClientEntry(
            number=number, token_sha256=leave_token(TOKENS / f"client-{number}.token")
        )
        roster = roster.with_entry(
            "client", dataclasses.replace(entry, public_key=key, node_id=str(nodes[number]))
        )
    return roster


if __name__ == "__main__":
    main()
