"""A backend in Python, for tests: answers each request with what each way of reading that Python programs use takes it for.
The address stands on the first line of its output."""
import asyncio, codecs, gzip, json, socket, urllib.parse, zlib

import uvicorn
from starlette.requests import Request
from starlette.responses import Response


def number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0


def read(body):
    if not hasattr(body, "get"):
        return None
    nested = lambda name, key: body[name].get(key) if isinstance(body.get(name), dict) else None
    tokens = max(map(number, [body.get("max_tokens"), body.get("max_completion_tokens"), body.get("max_output_tokens"),
                              nested("options", "num_predict"), nested("generationConfig", "maxOutputTokens")]))
    model = body.get("model")
    answers = max(1, number(body.get("n")), number(body.get("best_of")))
    return {"model": model if isinstance(model, str) else "", "tokens": tokens * answers}


def decoded(coding, body):
    decoders = {"gzip": gzip.decompress, "x-gzip": gzip.decompress, "deflate": zlib.decompress}
    try:
        return decoders[coding.lower()](body)
    except (KeyError, OSError, EOFError, zlib.error):
        return None


def in_path(path):
    segments = path.split("/")
    for segment, following in zip(segments, segments[1:]):
        if segment == "models" and ":" in following:
            return following.rsplit(":", 1)[0]
        if segment in ("model", "deployments"):
            return following
    return ""


def fields(text):
    """The last of several counts, as for most."""
    return dict(urllib.parse.parse_qsl(text, keep_blank_values=True))


def attempt(reader):
    try:
        return reader()
    except (ValueError, RecursionError):
        return None


async def of_form(scope, body):
    """What Starlette, and FastAPI with it, takes the form for."""
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    try:
        return read(await Request(scope, receive).form())
    except Exception:  # Whatever it raises is a refusal.
        return None


async def understood(request):
    body = await request.body()
    reads = {}
    for name, text in [("", body), (" decoded", decoded(request.headers.get("content-encoding", ""), body))]:
        if text is None:
            continue
        reads["json.loads" + name] = attempt(lambda: read(json.loads(text)))
        reads["json.loads of text" + name] = attempt(lambda: read(json.loads(text.decode("utf-8-sig", "replace"))))
        reads["raw_decode" + name] = attempt(
            lambda: read(json.JSONDecoder(strict=False).raw_decode(text.decode("utf-8", "replace").lstrip())[0]))
        reads["parse_qsl" + name] = read(fields(text.decode("latin-1")))
        reads["form" + name] = await of_form(request.scope, text)
    charset = request.headers.get("content-type", "").partition("charset=")[2].strip(' "')
    reads["json.loads by charset"] = attempt(lambda: read(json.loads(body.decode(charset)))) if known(charset) else None
    reads["query"] = read(fields(request.url.query))
    reads["path"] = {"model": in_path(request.url.path), "tokens": 0}
    reads["decoded path"] = {"model": in_path(request.scope["path"]), "tokens": 0}
    return reads


def known(charset):
    try:
        return charset and codecs.lookup(charset)
    except LookupError:
        return None


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    user = request.headers.get("x-user-id", "")
    reads = {name: one | {"user": user} for name, one in (await understood(request)).items() if one is not None}
    await Response(json.dumps(reads), media_type="application/vnd.reads")(scope, receive, send)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
print("%s:%d" % listener.getsockname(), flush=True)
server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
asyncio.run(server.serve(sockets=[listener]))
