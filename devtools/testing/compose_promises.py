"""What the Compose files promise: each promise says what of a stack breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from devtools.localstack import PLAN

__all__ = [
    "COMPOSE",
    "DEFAULTS",
    "ELK",
    "ELK_LOGS",
    "IMAGE",
    "ON_REQUEST",
    "PASSED",
    "PORTS",
    "PROCESSES",
    "PROMISES",
    "ROOT",
    "SHORTEST_GRACE_SECONDS",
    "STACK",
    "WATCH",
    "Promise",
    "Service",
    "Stack",
    "builds_the_image_once",
    "declares_its_volumes",
    "forgets_no_task_when_redis_is_full",
    "gives_each_process_its_port",
    "holds_no_privileges",
    "keeps_our_processes_read_only",
    "leaves_out_what_is_on_request",
    "lets_pgadmin_in",
    "load",
    "mounts_files_that_exist",
    "passes_settings_on",
    "pins_images",
    "points_at_its_own_servers",
    "publishes_loopback_only",
    "publishes_what_the_contract_names",
    "relays_from_its_own_rabbitmq",
    "runs_all_processes",
    "runs_without_root",
    "scrapes_every_process",
    "starts_in_order_of_health",
    "stops_in_peace_and_starts_again",
    "tells_its_health",
]

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
WATCH, ELK = COMPOSE.with_name("watch.yaml"), COMPOSE.with_name("elk.yaml")
ELK_LOGS = COMPOSE.with_name("elk-logs.yaml")
IMAGE = "event-processor:latest"
# What the contract publishes, and Redis for processes that run on the machine itself.
PORTS = {
    "web": "127.0.0.1:8080:8080",
    "postgres": "127.0.0.1:5432:5432",
    "kafka": "127.0.0.1:9092:9092",
    "redis": "127.0.0.1:6379:6379",
    "rabbitmq": "127.0.0.1:5672:5672 127.0.0.1:15672:15672",
    "kafka-ui": "127.0.0.1:8081:8080",
    "pgadmin": "127.0.0.1:5050:5050",
    "prometheus": "127.0.0.1:9090:9090",
    "grafana": "127.0.0.1:3000:3000",
    "jaeger": "127.0.0.1:16686:16686",
    "mailpit": "127.0.0.1:8025:8025",
    "elasticsearch": "127.0.0.1:9200:9200",
    "kibana": "127.0.0.1:5601:5601",
    "filebeat": "127.0.0.1:5514:5514/udp",
}
ON_REQUEST = {"elasticsearch", "kibana", "filebeat"}  # by the profile elk
PROCESSES = {"prepare", *PLAN.names}
SHORTEST_GRACE_SECONDS = 15
# Settings of whoever runs `docker compose up`: from the shell, or from a file .env.
PASSED = (
    "PROVIDERS", "WEBHOOK_URL", "MAIL_DOMAIN", "RATE_LIMIT_PER_CHANNEL", "NOTIFICATION_SENDERS",
    "NOTIFICATION_EXPIRES_SECONDS", "NOTIFICATION_EXPIRES_HIGH_SECONDS", "NOTIFICATION_RETENTION_HOURS",
    "FEED_WINDOW", "FEED_MERGE_FOLLOWERS", "FEED_CACHE_URL", "FEED_CACHE_SECONDS", "FEED_CACHE_FEEDS",
    "RATE_LIMIT", "WORKER_CONCURRENCY",
)  # fmt: skip
# The same, with a server of the stack for who says nothing; set to nothing they are off.
DEFAULTS = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318",
    "SMTP_URL": "smtp://mailpit:1025",
}
Stack = dict[str, Any]
Service = dict[str, Any]
Promise = Callable[[Stack], Iterable[str]]


def load(path: Path) -> Stack:
    loaded: Stack = yaml.safe_load(path.read_text())
    return loaded


def _together(*paths: Path) -> Stack:
    """As `include` puts them together: a name that two of them have would be refused."""
    whole: Stack = {"name": load(COMPOSE)["name"]}
    for path in paths:
        loaded = load(path)
        assert loaded["name"] == whole["name"]
        for part in ("services", "configs", "volumes"):
            assert not whole.get(part, {}).keys() & loaded.get(part, {}).keys()
            whole[part] = whole.get(part, {}) | loaded.get(part, {})
    return whole


STACK = _together(COMPOSE, WATCH, ELK)


def _services(stack: Stack) -> Iterator[tuple[str, Service]]:
    yield from stack["services"].items()


def _ours(stack: Stack) -> Iterator[tuple[str, Service]]:
    return ((name, service) for name, service in _services(stack) if service["image"] == IMAGE)


def _is_one_shot(service: Service) -> bool:
    return bool(service["restart"] == "no")


def _has_health(service: Service) -> bool:
    health = service.get("healthcheck", {})
    return bool(health.get("test")) and not health.get("disable")


def starts_in_order_of_health(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        for other, dependency in service.get("depends_on", {}).items():
            if other not in stack["services"]:
                yield f"{name} waits for {other}, which does not exist"
                continue
            awaited = stack["services"][other]
            match dependency["condition"]:
                case "service_healthy":
                    if not _has_health(awaited):
                        yield f"{name} waits for the health of {other}, which has no check"
                case "service_completed_successfully":
                    if not _is_one_shot(awaited):
                        yield f"{name} waits for the end of {other}, which never ends"
                case condition:
                    yield f"{name} waits for {other} only to be {condition}"
        if service["image"] == IMAGE and name != "prepare":
            missing = {"prepare", "postgres", "kafka", "redis"} - set(service["depends_on"])
            yield from (f"{name} does not wait for {other}" for other in sorted(missing))


def publishes_loopback_only(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        if "network_mode" in service:
            yield f"{name} leaves the stack's network"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name} publishes {port} beyond loopback"


def publishes_what_the_contract_names(stack: Stack) -> Iterator[str]:
    published = {name: service["ports"] for name, service in _services(stack) if "ports" in service}
    if published != {name: ports.split() for name, ports in PORTS.items()}:
        yield f"published: {published}"
    if stack["services"]["kafka"].get("container_name") != "kafka":
        yield "the container of Kafka is not named kafka"


def tells_its_health(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        if not _has_health(service) and not _is_one_shot(service):
            yield f"{name} has no health check"


def runs_without_root(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        user = str(service.get("user", "")).partition(":")[0]
        if user in ("", "0", "root"):
            yield f"{name} runs as {user or 'whoever its image says'}"


def holds_no_privileges(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        if service.get("cap_drop") != ["ALL"]:
            yield f"{name} keeps capabilities"
        if set(service.get("cap_add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name} adds capabilities"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name} may gain privileges"
        if service.get("privileged") or any("docker.sock" in str(v) for v in _mounts(service)):
            yield f"{name} reaches the host"


def _mounts(service: Service) -> list[str]:
    mounts: list[str] = service.get("volumes", [])
    return mounts


def stops_in_peace_and_starts_again(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        grace = str(service.get("stop_grace_period", "10s"))
        if int(grace.removesuffix("s")) < SHORTEST_GRACE_SECONDS:
            yield f"{name} is killed after {grace}"
        if service.get("init") is not True:
            yield f"{name} has no init to pass signals on and reap children"
        if service["restart"] != ("no" if name == "prepare" else "unless-stopped"):
            yield f"{name} restarts: {service['restart']}"


def keeps_our_processes_read_only(stack: Stack) -> Iterator[str]:
    for name, service in _ours(stack):
        writable = {mount.partition(":")[0] for mount in service.get("tmpfs", [])}
        metrics = service["environment"]["PROMETHEUS_MULTIPROC_DIR"]
        if service.get("read_only") is not True or not {"/tmp", metrics} <= writable:
            yield f"{name} is not a read-only file system with {metrics} and /tmp to write to"
        if service.get("user") != "10001:10001":
            yield f"{name} does not run as the image's user"


def pins_images(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        tag = service["image"].rpartition("/")[2].partition(":")[2]
        if service["image"] != IMAGE and not any(digit in tag for digit in "0123456789"):
            yield f"{name} takes whatever {service['image']} is today"


def builds_the_image_once(stack: Stack) -> Iterator[str]:
    builders = [name for name, service in _services(stack) if "build" in service]
    if builders != ["prepare"]:
        yield f"built by {builders}: the same tag exported twice at once fails"
    for name, service in _ours(stack):
        if service.get("pull_policy") != ("build" if name in builders else "never"):
            yield f"{name} may pull {IMAGE} from a registry"


def declares_its_volumes(stack: Stack) -> Iterator[str]:
    mounts = [mount.partition(":")[0] for _, s in _services(stack) for mount in _mounts(s)]
    used = {mount for mount in mounts if not mount.startswith(".")}
    for folder in set(mounts) - used:
        if not (COMPOSE.parent / folder).is_dir():
            yield f"there is no folder {folder}"
    if used != set(stack["volumes"]):
        yield f"used {sorted(used)}, declared {sorted(stack['volumes'])}"
    # 18 and later refuse to start over a volume at the old place.
    if _mounts(stack["services"]["postgres"]) != ["postgres-data:/var/lib/postgresql"]:
        yield "PostgreSQL's volume is not where its image keeps the data"


def mounts_files_that_exist(stack: Stack) -> Iterator[str]:
    for name, config in stack["configs"].items():
        if not (COMPOSE.parent / config["file"]).is_file():
            yield f"config {name}: there is no {config['file']}"
    for name, service in _services(stack):
        for config in service.get("configs", []):
            if config["source"] not in stack["configs"]:
                yield f"{name} mounts {config['source']}, which is not declared"


def gives_each_process_its_port(stack: Stack) -> Iterator[str]:
    for name, service in _ours(stack):
        environment = service["environment"]
        served = (environment.get("METRICS_HOST"), environment.get("METRICS_PORT"))
        if served != ((None, None) if name in ("web", "prepare") else ("0.0.0.0", "9100")):
            yield f"{name} serves its metrics at {served}"
        if environment.get("SERVICE_NAME") != name:
            yield f"{name} calls itself {environment.get('SERVICE_NAME')}"


def passes_settings_on(stack: Stack) -> Iterator[str]:
    for name, service in _ours(stack):
        passed = {variable: f"${{{variable}:-}}" for variable in PASSED}
        passed |= {variable: f"${{{variable}-{value}}}" for variable, value in DEFAULTS.items()}
        for variable, value in passed.items():
            if service["environment"].get(variable) != value:
                yield f"{name} does not hear of {variable}"
        for variable, value in DEFAULTS.items():
            if urlsplit(value).hostname not in stack["services"]:
                yield f"{variable} is of a server that is not in the stack"


def points_at_its_own_servers(stack: Stack) -> Iterator[str]:
    services = stack["services"]
    postgres, kafka = services["postgres"]["environment"], services["kafka"]["environment"]
    advertised = kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
    for name, service in _ours(stack):
        environment = service["environment"]
        database = urlsplit(environment["DATABASE_URL"])
        if (database.hostname, database.port, database.username, database.password) != (
            *("postgres", 5432),
            *(postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"]),
        ) or database.path != f"/{postgres['POSTGRES_DB']}":
            yield f"{name} looks for the database at {environment['DATABASE_URL']}"
        if f"INTERNAL://{environment['KAFKA_BOOTSTRAP_SERVERS']}" not in advertised:
            yield f"{name} looks for Kafka at {environment['KAFKA_BOOTSTRAP_SERVERS']}"
        if urlsplit(environment["REDIS_URL"]).hostname not in services:
            yield f"{name} looks for Redis at {environment['REDIS_URL']}"
    if f"HOST://localhost:{PORTS['kafka'].split(':')[1]}" not in advertised:
        yield "the machine cannot reach Kafka at localhost"
    if services["kafka-ui"]["environment"]["KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"] != "kafka:19092":
        yield "Kafka UI looks elsewhere"


def relays_from_its_own_rabbitmq(stack: Stack) -> Iterator[str]:
    given = stack["services"]["rabbitmq"]["environment"]
    known = ("rabbitmq", 5672, given["RABBITMQ_DEFAULT_USER"], given["RABBITMQ_DEFAULT_PASS"])
    # The page shows the relay's dead letters, and a worker replays them.
    for name in ("relay", "web", "worker-effects"):
        url = urlsplit(stack["services"][name]["environment"].get("RABBITMQ_URL", ""))
        if (url.hostname, url.port, url.username, url.password) != known:
            yield f"{name} looks for RabbitMQ at {url.hostname}:{url.port}"
    if stack["services"]["rabbitmq"].get("hostname") != "rabbitmq":
        yield "RabbitMQ's data would be another node's after each new container"
    if "rabbitmq" not in stack["services"]["relay"]["depends_on"]:
        yield "the relay does not wait for RabbitMQ"


def lets_pgadmin_in(stack: Stack) -> Iterator[str]:
    environment = stack["services"]["postgres"]["environment"]
    servers = json.loads((COMPOSE.parent / "pgadmin/servers.json").read_text())["Servers"]
    (server,) = servers.values()
    known = (server["Host"], server["MaintenanceDB"], server["Username"])
    if known != ("postgres", environment["POSTGRES_DB"], environment["POSTGRES_USER"]):
        yield f"pgAdmin knows {known}"
    *_, user, password = (COMPOSE.parent / "pgadmin/pgpass").read_text().strip().split(":")
    if (user, password) != (environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"]):
        yield "pgAdmin's password file is of another server"


def scrapes_every_process(stack: Stack) -> Iterator[str]:
    mounted = COMPOSE.parent / stack["configs"]["prometheus"]["file"]
    jobs = yaml.safe_load(mounted.read_text())["scrape_configs"]
    scraped = {
        name: lookup["port"]
        for job in jobs
        for lookup in job.get("dns_sd_configs", [])
        for name in lookup["names"]
    }
    served = {
        name: int(service["environment"].get("METRICS_PORT", 8080))
        for name, service in _ours(stack)
        if name != "prepare"
    }
    if scraped != served:
        yield f"scraped {scraped}, served {served}"
    for job in jobs:
        for address in job.get("static_configs", [{"targets": []}])[0]["targets"]:
            if address.partition(":")[0] not in (*stack["services"], "localhost"):
                yield f"{address} is not in the stack"


def leaves_out_what_is_on_request(stack: Stack) -> Iterator[str]:
    for name, service in _services(stack):
        if service.get("profiles", []) != (["elk"] if name in ON_REQUEST else []):
            yield f"{name} starts with the profiles {service.get('profiles')}"
        if name not in ON_REQUEST and ON_REQUEST & set(service.get("depends_on", {})):
            yield f"{name} waits for what is not started"


def forgets_no_task_when_redis_is_full(stack: Stack) -> Iterator[str]:
    command = stack["services"]["redis"]["command"]
    for option in ("--maxmemory-policy noeviction", "--appendonly yes"):
        if option not in command:
            yield f"Redis runs without {option}"


def runs_all_processes(stack: Stack) -> Iterator[str]:
    names = {name for name, _ in _ours(stack)}
    if names != PROCESSES:
        yield f"processes: {sorted(names)}"


PROMISES: tuple[Promise, ...] = (
    starts_in_order_of_health,
    publishes_loopback_only,
    publishes_what_the_contract_names,
    tells_its_health,
    runs_without_root,
    holds_no_privileges,
    stops_in_peace_and_starts_again,
    keeps_our_processes_read_only,
    pins_images,
    builds_the_image_once,
    declares_its_volumes,
    mounts_files_that_exist,
    gives_each_process_its_port,
    passes_settings_on,
    points_at_its_own_servers,
    relays_from_its_own_rabbitmq,
    lets_pgadmin_in,
    scrapes_every_process,
    leaves_out_what_is_on_request,
    forgets_no_task_when_redis_is_full,
    runs_all_processes,
)
