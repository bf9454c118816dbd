"""Schemathesis over the description that a running service gives: calls as described and calls that aren't, for two minutes at most.

That nothing is done without a key is tested in tests/serve.rs: `--header` puts the key in every call here, so that such a check would only find itself.
"""

import subprocess
import sys
from pathlib import Path

from served import Served

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
]
SECONDS = 120


def main():
    with Served() as served:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{served.url}/v1/openapi.json",
            "--header", f"authorization: Bearer {served.key}",
            "--checks", ",".join(CHECKS), "--max-time", str(SECONDS), "--request-timeout", "60", "--seed", "1",
            # It can't write archives; tests/api.rs uploads them, whole and broken.
            "--exclude-operation-id", "upload_adapter",
            "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure", "--warnings", "off",
            *sys.argv[1:],
        ]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
