#!/usr/bin/env bash
# A walk through the notifications API of a running stack; each answer is checked. Needs python3 alone.
#
#   scripts/test.sh                              against http://localhost:8080
#   BASE_URL=http://… API_KEY=… scripts/test.sh
#   SECONDS_TO_DELIVER=30                        how long a delivery may take; 0: none is waited for
set -euo pipefail
exec python3 - <<'WALK'
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone

BASE = os.environ.get("BASE_URL") or f"http://localhost:{os.environ.get('PORT') or 8080}"
API = f"{BASE}/api/v1"
PATIENCE = float(os.environ.get("SECONDS_TO_DELIVER") or 30)
HEADERS = {"Content-Type": "application/json"}
if os.environ.get("API_KEY"):
    HEADERS["Authorization"] = f"Bearer {os.environ['API_KEY']}"
RUN = f"{time.time_ns()}"


def fail(what, answer):
    sys.exit(f"FAILED  {what}: {str(answer)[:500]}")


def ask(method, url, status, body=None):
    """The answer to a request, which must have this status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, HEADERS, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            found, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        found, text = error.code, error.read()
    if found != status:
        fail(f"{method} {url}: {found}, not {status}", text.decode(errors="replace"))
    return json.loads(text) if text else None


def check(what, holds, answer):
    if not holds:
        fail(what, answer)
    print(f"ok      {what}")


def delivered(what, id_):
    """Wait until it is, and look at its attempts."""
    if not PATIENCE:
        return
    until = time.monotonic() + PATIENCE
    while (told := ask("GET", f"{API}/notifications/{id_}", 200))["status"] != "delivered":
        if time.monotonic() > until or told["status"] in ("failed", "cancelled"):
            fail(f"{what} is not delivered", told)
        time.sleep(0.2)
    attempts = ask("GET", f"{API}/notifications/{id_}/attempts", 200)["data"]
    check(f"{what} is delivered", told["sent_at"] and attempts[-1]["outcome"] == "delivered", told)


alive = ask("GET", f"{BASE}/health", 200)
check("the process answers", alive["status"] == "alive", alive)
ready = ask("GET", f"{BASE}/health/ready", 200)
check("the database answers", ready["checks"]["database"] == "healthy", ready)

# A template
body = "Hello {{.Name}}, your code: {{ .Code }}."
new = {"name": f"welcome-{RUN}", "channel": "email", "body": body}
template = ask("POST", f"{API}/templates", 201, new)
check("a template is made", new.items() <= template.items(), template)
taken = ask("POST", f"{API}/templates", 409, new)
check("its name is taken", taken["error"], taken)
listed = ask("GET", f"{API}/templates", 200)
check("it is listed", template in listed["data"], template)
variables = {"Name": "Ann", "Code": "42"}
preview = ask(
    "POST", f"{API}/templates/{template['id']}/preview", 200, {"variables": variables}
)
check("a preview of it", preview == {"content": "Hello Ann, your code: 42."}, preview)

# One by one
new = {"channel": "sms", "recipient": "+905000000000", "content": "Your code is 1234"}
sms = ask("POST", f"{API}/notifications", 201, {**new, "priority": "high"})
fits = new.items() <= sms.items() and (sms["status"], sms["max_retries"]) == ("pending", 5)
check("an SMS is accepted", fits, sms)
new = {"channel": "email", "recipient": "ann@example.com", "content": "fallback"}
by_template = {**new, "template_id": template["id"], "template_variables": variables}
email = ask("POST", f"{API}/notifications", 201, by_template)
fits = email["rendered"] and email["content"] == preview["content"]
check("an e-mail is made of the template", fits, email)
keyed = {"channel": "push", "recipient": f"token-{RUN}", "content": "Hello", "idempotency_key": RUN}
push = ask("POST", f"{API}/notifications", 201, keyed)
again = ask("POST", f"{API}/notifications", 409, keyed)
check("sent again with its key it is the same one", again["id"] == push["id"], again)
reused = ask("POST", f"{API}/notifications", 422, {**keyed, "content": "Bye"})
check("the key with another text is refused", reused["error"], reused)
wrong = ask("POST", f"{API}/notifications", 400, {**keyed, "channel": "sms"})
check("a wrong number is named", wrong["details"][0]["field"] == "recipient", wrong)

# A batch
items = [
    {"channel": "sms", "recipient": "+905000000001", "content": "one"},
    {"channel": "email", "recipient": "bob@example.com", "content": "two"},
    {"channel": "push", "recipient": "token", "content": "three"},
]
accepted = ask("POST", f"{API}/notifications/batch", 201, {"notifications": items})
batch, members = accepted["batch"], accepted["notifications"]
fits = batch["total_count"] == 3 and [each["content"] for each in members] == ["one", "two", "three"]
check("a batch is accepted", fits, accepted)
live = ask("GET", f"{API}/batches/{batch['id']}", 200)
counted = sum(live[f"{name}_count"] for name in ("pending", "delivered", "failed", "cancelled"))
check("its counts add up", counted == 3, live)

# Later, and never
later = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
scheduled = ask("POST", f"{API}/notifications", 201, {**items[0], "scheduled_at": later})
check("one is scheduled", scheduled["status"] == "scheduled", scheduled)
path = f"{API}/notifications/{scheduled['id']}/cancel"
cancelled = ask("PATCH", path, 200)
check("and cancelled", cancelled == {"status": "cancelled"}, cancelled)
refused = ask("PATCH", path, 409)
check("which cannot be done again", refused["status"] == "cancelled", refused)

delivered("the SMS", sms["id"])
delivered("the e-mail", email["id"])
delivered("the push", push["id"])
for member in members:
    delivered(f"{member['content']} of the batch", member["id"])

# Lists
query = urllib.parse.urlencode({"channel": "push", "recipient": keyed["recipient"], "page_size": 1})
page = ask("GET", f"{API}/notifications?{query}", 200)
fits = [each["id"] for each in page["data"]] == [push["id"]] and page["next_cursor"] is None
check("a list is narrowed", fits, page)
query = f"batch_id={batch['id']}&page_size=2"
first = ask("GET", f"{API}/notifications?{query}", 200)
last = ask("GET", f"{API}/notifications?{query}&cursor={first['next_cursor']}", 200)
seen = [each["id"] for each in first["data"] + last["data"]]
fits = seen == [each["id"] for each in reversed(members)] and last["next_cursor"] is None
check("a list has pages", fits, [first, last])

metrics = ask("GET", f"{API}/metrics", 200)["channels"]
fits = set(metrics) == {"sms", "email", "push"}
fits = fits and all(0 <= each["success_rate"] <= 100 for each in metrics.values())
check("metrics by channel", fits, metrics)
if PATIENCE:
    check("they have counted what was sent", all(each["sent"] for each in metrics.values()), metrics)

ask("DELETE", f"{API}/templates/{template['id']}", 204)
gone = ask("GET", f"{API}/templates/{template['id']}", 404)
check("the template is deleted", gone["error"], gone)
print("All as it should be.")
WALK
