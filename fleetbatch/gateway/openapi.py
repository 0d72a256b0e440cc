"""The OpenAPI document, from the table and structs that answer: `python -m fleetbatch.gateway.openapi` writes it."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from fleetbatch.contracts import schemas_folder
from fleetbatch.gateway.endpoints import ENDPOINTS, Endpoint
from fleetbatch.gateway.identity import ASSERTION_TYPE, GRANT_TYPE
from fleetbatch.gateway.problems import JSON_MEDIA, PROBLEM_MEDIA, Kind
from fleetbatch.protocol import PROTOCOL, Problem

_REF: Final = "#/components/schemas/{name}"
_SECURITY: Final[dict[str, list[dict[str, list[str]]]]] = {"car": [{"car": []}], "owner": [{"owner": []}], "anyone": []}
_ABOUT: Final = (
    "What cars and their owners say to a cell. Errors are RFC 9457 problems; 409 is final; 429 and 503 say when to come"
    " again. Every car and owner has an allowance in ten seconds, and so has every address for what proves nothing at"
    " /v1/token; nothing counts against a car that is only named. Allowances are each gateway process's own."
)
_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the gateway."""
    structs = [s for e in ENDPOINTS for s in (e.asks, e.answers) if s is not None]
    _, components = msgspec.json.schema_components([*dict.fromkeys(structs), Problem], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fleetbatch gateway",
            "version": str(PROTOCOL),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**{e.path: {e.method.lower(): _operation(e)} for e in ENDPOINTS}, **_watching(), **_objects()},
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "car": {"type": "http", "scheme": "bearer", "description": "Bought at /v1/token (RFC 7523, ES256)."},
                "owner": {"type": "http", "scheme": "bearer", "description": "Given by the deployment."},
            },
            "responses": {
                "problem": {"description": _problems(), "content": _content(Problem, PROBLEM_MEDIA)},
                "too_often": _later("The caller is over its allowance (RFC 6585)."),
                "not_now": _later("The gateway is behind, or its ledger or store is away; nothing was lost."),
            },
        },
    }


def text() -> str:
    """Return the document as it is kept in schemas/."""
    return json.dumps(document(), indent=2) + "\n"


def kept() -> Path:
    """Return where the document is kept."""
    return schemas_folder() / "gateway.openapi.json"


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.does.__name__,
        "summary": endpoint.summary,
        "security": _SECURITY[endpoint.caller],
        "responses": {
            "200": {"description": "Answered.", "content": _content(endpoint.answers)},
            "429": {"$ref": "#/components/responses/too_often"},
            "503": {"$ref": "#/components/responses/not_now"},
            "default": {"$ref": "#/components/responses/problem"},
        },
    }
    if endpoint.method == "GET":
        car = {"type": "string", "pattern": "^[0-7][0-9a-f]{15}$"}
        operation["parameters"] = [{"name": "car", "in": "query", "required": True, "schema": car}]
    elif endpoint.asks is None:
        operation["requestBody"] = {"required": True, "content": {"application/x-www-form-urlencoded": _form()}}
    else:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.asks)}
    return operation


def _content(struct: type[msgspec.Struct], media: bytes = JSON_MEDIA) -> dict[str, Any]:
    return {media.decode(): {"schema": {"$ref": _REF.format(name=struct.__name__)}}}


def _later(description: str) -> dict[str, Any]:
    seconds = {
        "description": "Seconds to wait (RFC 9110).",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
    return {
        "description": description,
        "headers": {"Retry-After": seconds},
        "content": _content(Problem, PROBLEM_MEDIA),
    }


def _form() -> dict[str, Any]:
    fields = {
        "grant_type": {"const": GRANT_TYPE},
        "client_assertion_type": {"const": ASSERTION_TYPE},
        "client_assertion": {"type": "string", "description": "A JWT of this car: iss, sub, aud, exp, jti."},
    }
    return {"schema": {"type": "object", "properties": fields, "required": list(fields)}}


def _watching() -> dict[str, Any]:
    plain = {"text/plain": {"schema": {"type": "string"}}}
    health = {"application/json": {"schema": {"type": "object"}}}
    return {
        "/healthz": {"get": _open("health", "The process lives; says whether the ledger answers.", health)},
        "/metrics": {"get": _open("metrics", "Counts in Prometheus' text format.", plain)},
    }


def _objects() -> dict[str, Any]:
    names = ("key", "expires", "signature", "size", "sha256")
    parameters = [
        {"name": name, "in": "path" if name == "key" else "query", "schema": {"type": "string"}}
        | ({"required": True} if name in {"key", "expires", "signature"} else {})
        for name in names
    ]
    get = _open("read_object", "A signed URL's object, ranges too (local folder only).", _BINARY)
    put = _open("create_object", "Create the one object that a signed URL allows (local folder only).", {})
    put["requestBody"] = {"required": True, "content": _BINARY}
    return {"/store/{key}": {"parameters": parameters, "get": get, "put": put}}


def _open(name: str, summary: str, content: dict[str, Any]) -> dict[str, Any]:
    good = {"description": "Answered.", **({"content": content} if content else {})}
    responses = {"200": good, "default": {"$ref": "#/components/responses/problem"}}
    if content is _BINARY:
        responses["206"] = good
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}


def _problems() -> str:
    kinds = ", ".join(f"{int(status)} {name}" for status, name in sorted(kind.value for kind in Kind))
    return f"A problem; `type` is urn:fleetbatch:NAME, of {kinds}."


if __name__ == "__main__":
    kept().write_text(text())
    sys.stdout.write(f"wrote {kept()}\n")
