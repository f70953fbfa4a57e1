"""The gRPC server around a vecdb database."""

from vecdb_server.config import ClassLimit, Limits, ServerConfig
from vecdb_server.run import run, serve
from vecdb_server.server import Server

__all__ = ["ClassLimit", "Limits", "Server", "ServerConfig", "run", "serve"]
