"""Write the stubs beside vecdb.proto: ``python proto/generate.py``.

Generated code refuses to be imported by a protobuf or grpcio older than its generator, so it is
generated with the oldest release that pyproject.toml allows, in an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

GENERATOR = "grpcio-tools==1.76.0"
ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = ("--python_out=proto", "--pyi_out=proto", "--grpc_python_out=proto")
SOURCE = "proto/vecdb_proto/v1/vecdb.proto"


def main() -> int:
    """Install the generator and run it; return the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True)
        python = str(Path(scratch) / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", GENERATOR], check=True)
        command = [python, "-m", "grpc_tools.protoc", "-I", "proto", *OUTPUTS, SOURCE]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
