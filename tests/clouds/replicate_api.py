"""What each request to Replicate's control plane answers."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tests.clouds.replicate_trainers import complaints
from tests.clouds.replicate_wire import Answering, Blob, Fault, Refused, Reply, Request, served

if TYPE_CHECKING:
    from tests.clouds.replicate import Model, ReplicateCloud, Training

_NO_TOKEN = "You did not pass a valid authentication token"
_NO_DESTINATION = "The specified training destination does not exist"
_NAME = r"[\w.-]+"

Handle = Callable[["ReplicateCloud", Request, re.Match[str]], Reply]


def answering(cloud: ReplicateCloud) -> Answering:
    """How the cloud's door answers."""

    def answer(request: Request) -> tuple[Fault, Callable[[], Reply]]:
        for method, pattern, name, handle in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and method in (request.method, "GET" if request.method == "HEAD" else ""):
                with cloud.changed:
                    cloud.requests.append(f"{request.method} {name}")
                cloud.before.get(name, lambda: None)()
                return cloud.next_fault(name), functools.partial(_carried_out, cloud, request, match, name, handle)
        with cloud.changed:
            cloud.requests.append(f"{request.method} {request.path}")
        return Fault(None), lambda: Refused(404, "The requested resource could not be found.").reply

    return answer


def _carried_out(cloud: ReplicateCloud, request: Request, match: re.Match[str], name: str, handle: Handle) -> Reply:
    given = request.headers.get("authorization", "")
    open_to_all = name in _OPEN or (name == "output" and not cloud.outputs_need_token)
    try:
        if not open_to_all and given not in (f"Bearer {cloud.token}", f"Token {cloud.token}"):
            raise Refused(401, _NO_TOKEN, "Unauthenticated")
        return handle(cloud, request, match)
    except Refused as refused:
        return refused.reply


def _account(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    return Reply(200, {"type": "user", "username": cloud.account, "name": "A tester", "github_url": None})


def _hardware(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    return Reply(200, cloud.hardware)


# models


def _create_model(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    body = request.json()
    missing = [name for name in ("owner", "name", "visibility", "hardware") if not isinstance(body.get(name), str)]
    if missing:
        raise Refused(422, f"- {missing[0]} is required", "Input validation failed")
    if body["owner"] != cloud.account:
        raise Refused(403, "You do not have permission to create a model for this owner.")
    if body["hardware"] not in {item["sku"] for item in cloud.hardware}:
        raise Refused(422, "- hardware: is not a valid SKU", "Input validation failed")
    name = f"{body['owner']}/{body['name']}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", body["name"]):
        raise Refused(422, "- name: may only contain lowercase letters, numbers, dashes, underscores and periods")
    if name in cloud.models:
        raise Refused(409, "A model with that name and owner already exists")
    return Reply(201, _model_shown(cloud.add_model(name, visibility=body["visibility"], hardware=body["hardware"])))


def _model(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    return Reply(200, _model_shown(_known_model(cloud, match)))


def _versions(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    model = _known_model(cloud, match)
    shown = [_version_shown(model, version) for version in reversed(model.schemas)]
    return Reply(200, {"previous": None, "next": None, "results": shown})


def _version(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    model = _known_model(cloud, match)
    if match["version"] not in model.schemas:
        raise Refused(404, "The requested resource could not be found.")
    return Reply(200, _version_shown(model, match["version"]))


def _known_model(cloud: ReplicateCloud, match: re.Match[str]) -> Model:
    model = cloud.models.get(f"{match['owner']}/{match['name']}")
    if model is None:
        raise Refused(404, "The requested resource could not be found.")
    return model


def _model_shown(model: Model) -> dict[str, Any]:
    latest = list(model.schemas)[-1:]
    return {
        "url": f"https://replicate.com/{model.owner}/{model.name}",
        "owner": model.owner,
        "name": model.name,
        "description": None,
        "visibility": model.visibility,
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": 0,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": _version_shown(model, latest[0]) if latest and not model.official else None,
    }


def _version_shown(model: Model, version: str) -> dict[str, Any]:
    schemas = {"Input": {"type": "object", "title": "Input", "properties": {}}, **model.schemas[version]}
    whole = {"openapi": "3.0.2", "info": {"title": "Cog", "version": "0.1.0"}, "components": {"schemas": schemas}}
    created = "2025-10-01T10:00:00.123456Z"
    return {"id": version, "created_at": created, "cog_version": "0.16.12", "openapi_schema": whole}


# trainings


def _submit(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    model, body = _known_model(cloud, match), request.json()
    schema = model.schemas.get(match["version"])
    if schema is None:
        raise Refused(404, "The specified version does not exist (or perhaps you don't have permission to use it?)")
    if body.get("destination") not in cloud.models:
        raise Refused(404, _NO_DESTINATION)
    given = body.get("input") or {}
    found = list(complaints(schema, given))
    if found:
        raise Refused(422, "\n".join(found), "Input validation failed")
    lost = [value for value in given.values() if str(value).startswith(f"{cloud.url}/files/")]
    if any(value.rpartition("/")[2] not in cloud.files for value in lost):
        raise Refused(422, "- input: a file is not there", "Input validation failed")
    more = {"webhook": body.get("webhook") or body.get("webhook_completed")}
    events = body.get("webhook_events_filter") or (["completed"] if "webhook_completed" in body else None)
    if events:
        more["events"] = tuple(events)
    with cloud.changed:
        cloud.submissions.append(body)
    name = f"{model.owner}/{model.name}"
    return Reply(201, shown(cloud, cloud.accept(name, match["version"], body["destination"], given, **more), True))


def _trainings(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    with cloud.changed:
        newest = list(reversed(cloud.trainings.values()))
    start = int(base64.urlsafe_b64decode(request.query["cursor"])) if "cursor" in request.query else 0
    rest = newest[start + cloud.page :]

    def link(at: int) -> str:
        return f"{cloud.url}/trainings?cursor={base64.urlsafe_b64encode(str(at).encode()).decode()}"

    page = {
        "previous": link(max(0, start - cloud.page)) if start else None,
        "next": link(start + cloud.page) if rest else None,
        "results": [shown(cloud, training) for training in newest[start : start + cloud.page]],
    }
    return Reply(200, page)


def _training(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    return Reply(200, shown(cloud, _known_training(cloud, match)))


def _cancel(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    cloud.cancel(_known_training(cloud, match).id)
    return Reply(200, shown(cloud, _known_training(cloud, match), True))


def _known_training(cloud: ReplicateCloud, match: re.Match[str]) -> Training:
    training = cloud.trainings.get(match["id"])
    if training is None:
        raise Refused(404, "The requested resource could not be found.")
    return training


def shown(cloud: ReplicateCloud, training: Training, posted: bool = False) -> dict[str, Any]:
    """A training as the API tells it; answers to POST name the URL of a prediction, as recordings of Replicate do."""
    from tests.clouds.replicate import moment

    with cloud.changed:
        times = {
            "created_at": moment(training.created, 6),
            "started_at": moment(training.started, 7),
            "completed_at": moment(training.completed, 9),
        }
        metrics = {}
        if training.completed and training.started:
            metrics = {"predict_time": training.completed - training.started}
            metrics["total_time"] = training.completed - training.created
        same = {key: getattr(training, key) for key in ("id", "input", "logs", "error", "status", "output")}
        if training.old is not None:
            asked = {name: value for name, value in training.old.items() if name != "input"}
            return {**asked, **same, "created_at": times["created_at"], "metrics": metrics, "version": None}
        at = f"{cloud.url}/{'predictions' if posted else 'trainings'}/{training.id}"
        urls = {"get": at, "cancel": f"{at}/cancel", "web": f"https://replicate.com/p/{training.id}"}
        place = {"destination": training.destination} if cloud.destination_shown else {}
        removed = {"data_removed": True} if training.data_removed else {}
        model = {"model": training.model, "version": training.version}
        return {**same, **model, **place, **times, **removed, "metrics": metrics, "source": "api", "urls": urls}


# files


def _create_file(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    name, media, data = request.form().get("content", ("", "", b""))
    if not name:
        raise Refused(400, "Missing content")
    if len(data) > cloud.file_limit:
        raise Refused(413, "File is too large")
    file_id = secrets.token_urlsafe(24)
    sums = {"sha256": hashlib.sha256(data).hexdigest(), "md5": hashlib.md5(data).hexdigest()}
    cloud.blobs[f"/files/{file_id}"] = Blob(data, media)
    cloud.files[file_id] = {
        "id": file_id,
        "name": name,
        "content_type": media,
        "size": len(data),
        "etag": sums["md5"],
        "checksums": sums,
        "metadata": {},
        "created_at": "2026-01-01T10:00:00.123Z",
        "expires_at": "2026-01-02T10:00:00.123Z",
        "urls": {"get": f"{cloud.url}/files/{file_id}"},
    }
    return Reply(201, cloud.files[file_id])


def _files(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    return Reply(200, {"previous": None, "next": None, "results": list(cloud.files.values())})


def _file(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    return Reply(200, _known_file(cloud, match))


def _delete_file(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    del cloud.files[_known_file(cloud, match)["id"]]
    return Reply(204)


def _known_file(cloud: ReplicateCloud, match: re.Match[str]) -> Mapping[str, Any]:
    if match["id"] not in cloud.files:
        raise Refused(404, "The requested resource could not be found.")
    return cloud.files[match["id"]]


def signed_content(cloud: ReplicateCloud, file_id: str) -> str:
    """The path under which a file is read without a token."""
    key = hmac.new(cloud.webhook_secret.encode(), file_id.encode(), "sha256").hexdigest()
    return f"/v1/files/{file_id}/download?signature={key}"


def _content(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    file_id = _known_file(cloud, match)["id"]
    if signed_content(cloud, file_id).rpartition("=")[2] != request.query.get("signature"):
        raise Refused(403, "The signature does not match")
    return served(cloud.blobs[f"/files/{file_id}"], request, cloud.heeds_if_range)


def _output(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    if request.path not in cloud.blobs:
        raise Refused(404, "The requested resource could not be found.")
    return served(cloud.blobs[request.path], request, cloud.heeds_if_range)


def _secret(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    return Reply(200, {"key": cloud.webhook_secret})


def _cog(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    cloud.told_by_cog(match["id"], request.json(), request.headers.get("authorization", ""))
    return Reply(200, {})


# the DreamBooth API of 2022


def _old_submit(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    body = request.json()
    missing = [name for name in ("input", "trainer_version", "model") if not body.get(name)]
    missing += [name for name in ("instance_prompt", "class_prompt", "instance_data") if name not in body["input"]]
    if missing:
        raise Refused(400, f"{missing[0]} is required")
    hook = body.get("webhook_completed")
    with cloud.changed:
        cloud.submissions.append(body)
    more = {"webhook": hook, "events": ("completed",), "old": body}
    training = cloud.accept("replicate/dreambooth", body["trainer_version"], body["model"], body["input"], **more)
    return Reply(201, shown(cloud, training))


def _old_upload(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    place = f"{cloud.origin}/old/{secrets.token_hex(8)}/data.zip"
    return Reply(200, {"upload_url": f"{place}?signature=abc", "serving_url": place})


def _old_put(cloud: ReplicateCloud, request: Request, match: re.Match[str]) -> Reply:
    if request.query.get("signature") != "abc" or "authorization" in request.headers:
        raise Refused(403, "The signature does not match")
    cloud.blobs[request.path] = Blob(request.body, "application/zip")
    return Reply(200)


_MODEL = rf"/v1/models/(?P<owner>{_NAME})/(?P<name>{_NAME})"
_TRAINING = rf"/v1/trainings/(?P<id>{_NAME})"
_FILE = rf"/v1/files/(?P<id>{_NAME})"
_OPEN = frozenset({"content", "cog", "old-put", "old-get"})
_ROUTES: tuple[tuple[str, str, str, Handle], ...] = (
    ("GET", "/v1/account", "account", _account),
    ("GET", "/v1/hardware", "hardware", _hardware),
    ("POST", "/v1/models", "models", _create_model),
    ("GET", _MODEL, "model", _model),
    ("GET", f"{_MODEL}/versions", "versions", _versions),
    ("GET", rf"{_MODEL}/versions/(?P<version>{_NAME})", "version", _version),
    ("POST", rf"{_MODEL}/versions/(?P<version>{_NAME})/trainings", "submit", _submit),
    ("GET", "/v1/trainings", "trainings", _trainings),
    ("GET", _TRAINING, "training", _training),
    ("POST", f"{_TRAINING}/cancel", "cancel", _cancel),
    ("POST", "/v1/files", "upload", _create_file),
    ("GET", "/v1/files", "files", _files),
    ("GET", _FILE, "file", _file),
    ("DELETE", _FILE, "file", _delete_file),
    ("GET", f"{_FILE}/download", "content", _content),
    ("GET", r"/delivery/.+", "output", _output),
    ("GET", "/v1/webhooks/default/secret", "secret", _secret),
    ("POST", r"/cog/(?P<id>\w+)", "cog", _cog),
    ("POST", "/v1/trainings", "old-submit", _old_submit),
    ("POST", r"/v1/upload/data\.zip", "old-upload", _old_upload),
    ("PUT", r"/old/\w+/data\.zip", "old-put", _old_put),
    ("GET", r"/old/\w+/data\.zip", "old-get", _output),
)
