"""What FastAPI serves besides streams: docs, redirects, uploads, validation. Usage: fastapi_pages.py PROXY_URL"""

import sys

import httpx

client = httpx.Client(base_url=sys.argv[1], timeout=30)

assert client.get("/health").json() == {"status": "ok"}
assert "swagger" in client.get("/docs").text.lower()
assert "/api/v1/chat" in client.get("/openapi.json").json()["paths"]

redirect = client.get("/api/v1/items")
assert redirect.status_code == 307, redirect
assert redirect.headers["location"] == f"{sys.argv[1]}/api/v1/items/", redirect.headers["location"]
page = client.get("/api/v1/items", follow_redirects=True).json()
assert page["host"] == sys.argv[1].removeprefix("http://"), page

data = bytes(range(256)) * 4096 * 3
answer = client.post("/api/v1/upload", files={"file": ("big.bin", data)})
assert answer.json() == {"name": "big.bin", "bytes": len(data)}, answer.text

invalid = client.post("/api/v1/chat", content=b"{not json", headers={"content-type": "application/json"})
assert invalid.status_code == 422, "the backend's own answer to malformed JSON passes"
assert client.get("/nowhere").json() == {"detail": "Not Found"}
print("FastAPI: docs, redirect, upload and validation pass")
