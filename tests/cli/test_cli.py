"""The command line's own part: what it takes, what it refuses, how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from vecdb.cli import main


@pytest.mark.parametrize(
    ("options", "variable", "keys"),
    [
        ((), "my secret key", ("my secret key",)),
        ((), "", ()),
        (("--api-key", "one", "--api-key", "t wo"), "three", ("one", "t wo")),
    ],
)
def test_the_variable_holds_one_api_key(
    options: tuple[str, ...], variable: str, keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[Any] = []
    monkeypatch.setattr("vecdb_server.serve", lambda config, _: configs.append(config))
    done = CliRunner().invoke(
        main, ["serve", "--data", "d", *options], env={"VECDB_API_KEY": variable}
    )
    assert done.exit_code == 0, done.output
    assert [config.api_keys for config in configs] == [keys]
