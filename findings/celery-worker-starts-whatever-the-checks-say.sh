#!/usr/bin/env bash
# celery 5.7.0 with Django 5.2.19: a worker runs Django's system checks when it starts, and starts and takes
# tasks though one of them is an error. `manage.py check` of the same project exits with 1.
#
# Seen, with one registered check that returns Error("A queue has no worker.", id="demo.E001"):
#   manage.py check        exit code 1, names demo.E001
#   celery worker          runs the check, becomes ready, answers a ping; nothing in its log names demo.E001
# So whoever relies on checks to stop a wrong deployment has to run them apart from the worker.
set -euo pipefail
work=$(mktemp -d)
worker=""
trap '[ -z "$worker" ] || { kill -9 "$worker"; wait "$worker" || true; } 2>/dev/null; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet celery==5.7.0 kombu==5.7.0 django==5.2.19
mkdir -p "$work/demo/queue"
cat >"$work/demo/demo_settings.py" <<'PYTHON'
SECRET_KEY = "demo"
INSTALLED_APPS = ["shop"]
PYTHON
mkdir "$work/demo/shop"
touch "$work/demo/shop/__init__.py"
cat >"$work/demo/shop/apps.py" <<'PYTHON'
from django.apps import AppConfig
from django.core.checks import Error, register


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        @register()
        def queues_have_workers(app_configs, **kwargs):
            with open("checked", "a") as seen:
                seen.write("checked\n")
            return [Error("A queue has no worker.", id="demo.E001")]
PYTHON
cat >"$work/demo/work.py" <<'PYTHON'
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_settings")

from celery import Celery

app = Celery("work", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue",
    "data_folder_out": "queue",
    "control_folder": "queue",
}
PYTHON
cd "$work/demo"
export DJANGO_SETTINGS_MODULE=demo_settings PYTHONPATH=.

code=0
"$work/venv/bin/python" -m django check >"$work/check.log" 2>&1 || code=$?
echo "manage.py check: exit code $code, $(grep -c demo.E001 "$work/check.log") line names demo.E001"
[ "$code" -eq 1 ] && grep -q demo.E001 "$work/check.log"

rm -f checked
"$work/venv/bin/celery" -A work worker --pool solo --loglevel info >"$work/worker.log" 2>&1 &
worker=$!
for _ in $(seq 120); do
  grep -q "ready\." "$work/worker.log" && break
  kill -0 "$worker"
  sleep 0.5
done
grep "ready\." "$work/worker.log" >/dev/null
echo "celery worker: checks run $(wc -l <checked) time, ready, $(grep -c demo.E001 "$work/worker.log" || true) lines name demo.E001"
[ -s checked ]
! grep -q demo.E001 "$work/worker.log"
kill -0 "$worker"
