"""What backends take for the model of a body: a strict one, Python's own reader, and Node's and Go's by their rules."""
import json, sys, zlib

def refuse(word): raise ValueError(word)

def decoded(request):
    body = bytes.fromhex(request["body"])
    coding = (request["coding"] or "").lower()
    if coding in ("", "identity"): return body
    if "gzip" in coding: return zlib.decompress(body, 31)
    if coding == "deflate": return zlib.decompress(body)
    raise ValueError(coding)

def model_of(value): return value.get("model") if isinstance(value, dict) else None

def strict(request):
    """Looks at label and coding, and takes nothing that RFC 8259 does not."""
    types = request["types"]
    if len(types) != 1 or not types[0].startswith("application/json"): return None
    return model_of(json.loads(decoded(request).decode("utf-8"), parse_constant=refuse))

def python(request): return model_of(json.loads(bytes.fromhex(request["body"])))

def python_decoding(request): return model_of(json.loads(decoded(request)))

def node(request):
    """Buffer.toString puts U+FFFD in place of what is no UTF-8."""
    return model_of(json.loads(decoded(request).decode("utf-8", "replace"), parse_constant=refuse))

def go(request):
    """Decoder.Decode stops after the first value; of keys that are equal but for case the last counts."""
    text = bytes.fromhex(request["body"]).decode("utf-8", "replace").lstrip()
    fold = lambda pairs: {key.casefold(): value for key, value in pairs}
    return model_of(json.JSONDecoder(object_pairs_hook=fold, parse_constant=refuse).raw_decode(text)[0])

def form(request):
    """The field of a form, plain or with an upload."""
    body = bytes.fromhex(request["body"]).decode("latin1")
    label = request["types"][0] if request["types"] else ""
    if label.startswith("multipart/form-data"):
        return body.split('name="model"\r\n\r\n')[1].split("\r\n")[0]
    if label.startswith("application/x-www-form-urlencoded") and not body.lstrip().startswith("{"):
        from urllib.parse import parse_qs
        return parse_qs(body)["model"][-1]
    return None

def read(reader, request):
    try: return reader(request)
    except (ValueError, IndexError, KeyError, zlib.error): return None

readers = [strict, python, python_decoding, node, go, form]
print(json.dumps([{reader.__name__: read(reader, request) for reader in readers} for request in json.load(sys.stdin)]))
