"""A real server of files on this machine: with and without Range, and one that breaks off."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files:
    """What a server has and how it behaves.

    content: bytes by name.
    ranges: whether it sends parts.
    tag: the version that it gives as ETag, None for none.
    cut_after: bytes of a body after which connections break off, None for never.
    held: an event that a connection waits for at that place instead, to be killed meanwhile.
    requests: path, Range, If-Range and the status of the answer.
    """

    def __init__(self, content):
        self.content = content
        self.ranges = True
        self.tag = '"one"'
        self.cut_after = None
        self.held = None
        self.busy = 0
        self.requests = []


def handler_of(files):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            name = self.path.rpartition("/")[2]
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            data = files.content.get(name)
            status, start = 200, 0
            if files.busy:
                files.busy -= 1
                status, data = 503, b""
            elif data is None:
                status, data = 404, b"no such file"
            elif asked and files.ranges and condition in (None, files.tag):
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                status = 206 if start < len(data) else 416
            files.requests.append((name, asked, condition, status))
            body = data[start:] if status in (200, 206, 404) else b""
            self.send_response(status)
            if files.tag and status in (200, 206):
                self.send_header("ETag", files.tag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if files.cut_after is not None and status < 300 and files.cut_after < len(body):
                self.wfile.write(body[:files.cut_after])
                self.wfile.flush()
                if files.held:
                    files.held.wait(60)
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


@contextlib.contextmanager
def serving(files):
    """Yields the address of the folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(files))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/flowers/102/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
