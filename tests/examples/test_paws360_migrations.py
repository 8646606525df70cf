# SPDX-License-Identifier: Apache-2.0
"""The PAWS360 example finds a migration that can't be taken back before anything is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "paws360"
APPROVED = "-- irreversible: approved by ann; backup: base backup of Sunday\n"


def checked(folder: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, EXAMPLE / "infrastructure" / "check_migrations.py", folder]
    return subprocess.run(call, capture_output=True, text=True, timeout=60)


def test_the_examples_own_migrations_only_add() -> None:
    assert checked(EXAMPLE / "app" / "migrations").returncode == 0


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DROP TABLE students;", "drops"),
        ("ALTER TABLE students DROP COLUMN pronouns;", "drops"),
        ("alter table students drop pronouns;", "drops"),
        ("ALTER TABLE students\n  ADD COLUMN a int,\n  DROP name;", "drops"),
        ("TRUNCATE students;", "empties"),
        ("DELETE FROM students WHERE id > 5;", "empties"),
        ("ALTER TABLE students RENAME TO pupils;", "renames"),
        ("ALTER TABLE students RENAME name TO full_name;", "renames"),
        ("ALTER TABLE students ALTER COLUMN id TYPE int;", "rewrites"),
        ("UPDATE students SET name = upper(name);", "rewrites"),
        ("ALTER TABLE students ALTER name SET NOT NULL;", "demands"),
        ("ALTER TABLE students ADD COLUMN age int NOT NULL;", "demands"),
    ],
)
def test_what_takes_away_is_refused_unless_somebody_approved_it_with_a_backup(
    tmp_path: Path, statement: str, what: str
) -> None:
    migration = tmp_path / "0003_x.sql"
    migration.write_text(statement)
    refused = checked(tmp_path)
    assert refused.returncode == 1
    assert f"0003_x.sql {what}" in refused.stderr
    migration.write_text(APPROVED.partition(";")[0] + "\n" + statement)
    assert checked(tmp_path).returncode == 1, "an approval without a backup is none"
    migration.write_text(APPROVED + statement)
    assert checked(tmp_path).returncode == 0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE rooms (id int NOT NULL);",
        "ALTER TABLE students ADD COLUMN age int;",
        "ALTER TABLE students ADD COLUMN active bool NOT NULL DEFAULT true;",
        "ALTER TABLE students ALTER age DROP NOT NULL, DROP CONSTRAINT students_age;",
        "-- DROP TABLE students;\nCREATE INDEX ON students (name);",
        "/* TRUNCATE\nstudents */ SELECT 1;",
        "COMMENT ON TABLE students IS 'do not DROP TABLE students; it''s needed';",
    ],
)
def test_what_only_adds_passes(tmp_path: Path, statement: str) -> None:
    (tmp_path / "0003_x.sql").write_text(statement)
    done = checked(tmp_path)
    assert done.returncode == 0, done.stderr
