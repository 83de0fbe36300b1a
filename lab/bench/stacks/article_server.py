"""The article's chat service: one plain `http.server`, one request at a time."""

import json
import sys
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8001


class Chat(BaseHTTPRequestHandler):
    """POST /chat: answer in upper case and print the message, as the article does."""

    def do_POST(self) -> None:
        """Answer one message."""
        data = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(f"--- {self.path} request @{PORT} ---")
        print(f"[Client] {self.client_address[0]}:{self.client_address[1]}")
        print(f"[data] {data}")
        message = json.loads(data)["message"]
        answer = {
            "original": message,
            "response": f"Processed by chat API: {message.upper()}",
            "server": PORT,
            "timestamp": datetime.now().isoformat(),
        }
        self.send_response(200)
        self.send_header("Content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":
    HTTPServer(("0.0.0.0", PORT), Chat).serve_forever()
