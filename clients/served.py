"""A service of its own for a test."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("POA", str(ROOT / "target/release/poa"))


class Served:
    """`poa serve --demo` on a port of its own; its data is removed at the end."""

    def __enter__(self):
        self.data = tempfile.mkdtemp(prefix="poa-clients-")
        command = [PROGRAM, "serve", "--demo", "--json", "--listen", "127.0.0.1:0", "--data", self.data]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line = json.loads(self.process.stdout.readline())
        self.url, self.key = f"http://{line['address']}", line["admin_key"]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.data, ignore_errors=True)
