# SPDX-License-Identifier: Apache-2.0
"""Where the config and the store are found, and what is told when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.config.discovery import find_config, store_url
from surefoot.config.loading import Peek
from surefoot.core.errors import Code, ConfigError, Exit


def config(folder: Path, store: str | None = None, secrets: tuple[str, ...] = ()) -> Peek:
    return Peek(folder / "surefoot.yml", "p", store, secrets, ())


def test_the_option_comes_before_the_variable_and_that_before_the_folders(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for path in (tmp_path / "surefoot.yml", tmp_path / "a" / "surefoot.yml", deep / "other.yml", deep / "third.yml"):
        path.touch()
    environ = {"SUREFOOT_CONFIG": "other.yml"}
    assert find_config("third.yml", environ, deep) == deep / "third.yml"
    assert find_config(None, environ, deep) == deep / "other.yml"
    assert find_config(None, {}, deep) == tmp_path / "a" / "surefoot.yml"
    assert find_config(None, {"SUREFOOT_CONFIG": ""}, tmp_path) == tmp_path / "surefoot.yml"
    assert find_config(str(tmp_path / "surefoot.yml"), {}, deep) == tmp_path / "surefoot.yml"


def test_no_config_anywhere_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no surefoot\.yml") as caught:
        find_config(None, {}, tmp_path)
    assert caught.value.code is Code.CONFIG_MISSING
    assert caught.value.exit_code is Exit.USAGE
    assert "surefoot init" in caught.value.hint


def test_a_config_by_nearly_the_right_name_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "surefoot.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        find_config(None, {}, tmp_path)
    assert "rename it to surefoot.yml" in caught.value.hint


@pytest.mark.parametrize(("given", "environ"), [("no.yml", {}), (None, {"SUREFOOT_CONFIG": "no.yml"}), ("", {})])
def test_a_named_config_that_does_not_exist_is_not_replaced_by_another(
    tmp_path: Path, given: str | None, environ: dict[str, str]
) -> None:
    (tmp_path / "surefoot.yml").touch()
    with pytest.raises(ConfigError) as caught:
        find_config(given, environ, tmp_path)
    assert caught.value.code is Code.CONFIG_MISSING


def test_the_store_is_where_the_nearest_of_four_places_says(tmp_path: Path) -> None:
    project, here = tmp_path / "project", tmp_path / "here"
    environ = {"SUREFOOT_STORE": "env.db"}
    with_store = config(project, "state/x.db")
    assert store_url(with_store, "cli.db", environ, here) == str(here / "cli.db")
    assert store_url(with_store, None, environ, here) == str(here / "env.db")
    assert store_url(with_store, None, {}, here) == str(project / "state/x.db")
    assert store_url(config(project), None, {}, here) == str(project / ".surefoot/surefoot.db")


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("postgresql://u:p%40x@h1,h2:5433/db?sslmode=require", "postgresql://u:p%40x@h1,h2:5433/db?sslmode=require"),
        ("sqlite:///srv/x.db", "/srv/x.db"),
        ("sqlite://x%20y.db", "/project/x y.db"),
        ("/srv/x.db", "/srv/x.db"),
        ("mysql://h/db", "mysql://h/db"),
        ("./a:b.db", "/project/a:b.db"),
        ("x=y/z.db", None),
        ("postgres:/h/db", None),
        ("postgresql:h", None),
        ("sqlite:x.db", None),
        ("h:5432/db", None),
        ("host=h dbname=db password=secret", None),
        ("dbname = db", None),
    ],
)
def test_urls_pass_relative_files_are_relative_to_the_config_and_what_is_neither_is_refused(
    store: str, expected: str | None
) -> None:
    if expected is not None:
        assert store_url(config(Path("/project"), store), None, {}, Path("/")) == expected
        return
    with pytest.raises(ConfigError) as caught:
        store_url(config(Path("/project"), store), None, {}, Path("/"))
    assert caught.value.code is Code.CONFIG_VALUE and "secret" not in str(caught.value)


def test_a_secret_in_the_store_is_filled_in_only_here() -> None:
    with_secret = config(Path("/project"), "postgresql://u:${PGPASSWORD}@h/db", ("PGPASSWORD",))
    assert store_url(with_secret, None, {"PGPASSWORD": "p"}, Path("/")) == "postgresql://u:p@h/db"
    with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
        store_url(with_secret, None, {}, Path("/"))
    assert caught.value.code is Code.CONFIG_VARIABLE


def test_a_folder_that_was_removed_under_our_feet_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="has been removed"):
        find_config(None, {})


def test_neither_config_nor_store_is_an_error(tmp_path: Path) -> None:
    assert store_url(None, "x.db", {}, tmp_path) == str(tmp_path / "x.db")
    with pytest.raises(ConfigError) as caught:
        store_url(None, None, {}, tmp_path)
    assert "--store" in caught.value.hint
