"""The API's description for machines (OpenAPI 3.1)."""

from typing import Any

from meshwright.app.job_request import TASKS
from meshwright.app.option_fields import options_schema

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One sentence for people: what, and what to do."}},
    "required": ["error"],
}
_NULLABLE_NUMBER = {"type": ["number", "null"]}
_JOB = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "task": {"enum": list(TASKS)},
        "title": {"type": "string"},
        "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
        "batch": {"type": ["string", "null"]},
        "created": {"type": "number", "description": "Unix seconds."},
        "started": _NULLABLE_NUMBER,
        "ended": _NULLABLE_NUMBER,
        "error": {"type": ["string", "null"]},
        "place": {"type": ["integer", "null"], "description": "Jobs that wait before this one."},
        "stage": {"type": "string"},
        "fraction": {"type": "number", "description": "Of the stage."},
        "detail": {"type": "string"},
        "version": {"type": "integer", "description": "Grows with every change of a running job."},
        "files": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "bytes": {"type": "integer"}}},
        },
        "options": {"type": "object"},
        "exclude": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["id", "task", "title", "state", "files"],
}


def openapi_document(version: str) -> dict[str, Any]:
    """The whole document; options come from `meshwright.options`."""
    wanted = {
        "task": {"enum": list(TASKS), "default": "reconstruct"},
        "exclude": {"type": "array", "items": {"type": "integer"}, "description": "Numbers of views to leave out."},
        "options": {"anyOf": [{"$ref": f"#/components/schemas/{task}-options"} for task in TASKS]},
    }
    form = {
        "type": "object",
        "properties": {
            "files": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
            "batch": {"type": "boolean", "description": "Each file is an input of its own and makes a job of its own."},
            **wanted,
        },
        "required": ["files"],
    }
    again = {
        "type": "object",
        "properties": {
            "from": {"type": "string", "description": "A job whose files are used again."},
            "example": {"type": "string", "description": "A bundled example."},
            **wanted,
        },
    }
    made = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "ids": {"type": "array", "items": {"type": "string"}}},
    }
    refusals = {"4XX": _answer("The request cannot be used.", _ERROR), "503": _answer("Try later.", _ERROR)}
    job = {"$ref": "#/components/schemas/Job"}
    jobs = {"type": "object", "properties": {"jobs": {"type": "array", "items": job}}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    batch = {"name": "batch", "in": "query", "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "meshwright", "version": version, "license": {"name": "Apache-2.0"}},
        "components": {
            "schemas": {"Job": _JOB, **{f"{task}-options": options_schema(groups) for task, groups in TASKS.items()}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
        "paths": {
            "/jobs": {
                "post": {
                    "summary": "Queue a job on uploaded files, an example, or an earlier job's files.",
                    "requestBody": {
                        "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": again}}
                    },
                    "responses": {"202": _answer("Queued.", made), **refusals},
                },
                "get": {
                    "summary": "The newest jobs.",
                    "parameters": [batch],
                    "responses": {"200": _answer("Jobs, newest first.", jobs)},
                },
            },
            "/jobs/{id}": {
                "parameters": [_ID],
                "get": {"summary": "One job.", "responses": {"200": _answer("The job.", job), **refusals}},
                "delete": {
                    "summary": "Cancel a job at once and remove it with its files.",
                    "responses": {"204": {"description": "Gone."}, **refusals},
                },
            },
            "/jobs/{id}/cancel": {
                "parameters": [_ID],
                "post": {
                    "summary": "Cancel a job and keep its record.",
                    "responses": {"200": _answer("The job.", job), **refusals},
                },
            },
            "/jobs/{id}/events": {
                "parameters": [_ID],
                "get": {
                    "summary": "Server-sent events named job, each with the whole job, until it has ended.",
                    "responses": {
                        "200": {"description": "A stream.", "content": {"text/event-stream": {}}},
                        **refusals,
                    },
                },
            },
            "/jobs/{id}/{name}": {
                "parameters": [_ID, name],
                "get": {
                    "summary": "A file of a job: mesh.glb, preview.png, report.json, views.json, view-000.jpg, ...",
                    "responses": {"200": {"description": "The file; ranges are served."}, **refusals},
                },
            },
            "/health": {"get": {"summary": "200 while jobs can run.", "responses": {"200": {"description": "Well."}}}},
            "/metrics": {
                "get": {"summary": "Counters for Prometheus.", "responses": {"200": {"description": "Text."}}}
            },
        },
    }


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
