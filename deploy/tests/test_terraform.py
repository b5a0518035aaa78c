"""The Terraform files: formatted, loaded by Terraform itself, whole, and of arguments that the providers have.

No provider is run, because that takes an account in a cloud. What its arguments are is known from the packages that
cdktf makes of its schema; they are read and not imported.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from devtools.testing.chart import TOOLS, tool

TERRAFORM = Path(__file__).resolve().parents[1] / "terraform"
CLOUDS = ["aws", "gcp"]
PROVIDERS = {"aws": "aws", "gcp": "google"}
# What every resource takes, from Terraform and not from a provider.
META = {"count", "for_each", "depends_on", "lifecycle", "provider", "provisioner", "connection"}
# What the contract names -> the resource that is it.
WANTED = {
    "aws": {"aws_vpc", "aws_iam_role", "aws_eks_cluster", "aws_eks_node_group"},
    "gcp": {
        "google_compute_network", "google_compute_subnetwork", "google_container_cluster",
        "google_container_node_pool", "google_service_account",
    },
}  # fmt: skip
MANAGED = {
    "aws": {"aws_db_instance", "aws_msk_cluster", "aws_elasticache_replication_group"},
    "gcp": {
        "google_sql_database_instance",
        "google_managed_kafka_cluster",
        "google_redis_instance",
    },
}


def _text(cloud: str, name: str = "*.tf") -> str:
    return "\n".join(path.read_text() for path in sorted((TERRAFORM / cloud).glob(name)))


def _without_comments(text: str) -> str:
    return re.sub(r"(?m)^\s*#.*$", "", text)


def _terraform(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("terraform"), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy_of(tmp_path: Path) -> Any:
    """A copy that keeps no state: Terraform loads it without asking a cloud."""

    def of(cloud: str) -> Path:
        folder = tmp_path / cloud
        shutil.copytree(TERRAFORM / cloud, folder)
        versions = folder / "versions.tf"
        bare = re.sub(r'(?ms)^  backend "\w+" \{\n.*?^  \}\n', "", versions.read_text())
        assert bare != versions.read_text()
        versions.write_text(bare)
        return folder

    return of


@pytest.mark.parametrize("cloud", CLOUDS)
def test_files_are_formatted(cloud: str) -> None:
    told = _terraform("fmt", "-check", "-diff", folder=TERRAFORM / cloud)
    assert told.returncode == 0, told.stdout


def test_what_is_not_formatted_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text('variable "a" {\ntype=string\n}\n')
    assert _terraform("fmt", "-check", folder=tmp_path).returncode != 0


@pytest.mark.parametrize("cloud", CLOUDS)
def test_terraform_loads_them(cloud: str, copy_of: Any) -> None:
    told = _terraform("providers", folder=copy_of(cloud))
    assert told.returncode == 0, told.stderr
    assert f"hashicorp/{PROVIDERS[cloud]}" in told.stdout


@pytest.mark.parametrize("line", ['resource "a" {}', 'variable "name" {}', "module {"])
def test_terraform_refuses(line: str, copy_of: Any) -> None:
    folder = copy_of("aws")
    (folder / "more.tf").write_text(line)
    assert _terraform("providers", folder=folder).returncode != 0


def _declared(text: str) -> set[str]:
    blocks = re.findall(r'(?m)^(resource|data|variable) "(\w+)"(?: "(\w+)")?', text)
    kinds = {"resource": "", "data": "data.", "variable": "var."}
    found = {kinds[kind] + ".".join(filter(None, names)) for kind, *names in blocks}
    for body in re.findall(r"(?ms)^locals \{\n(.*?)^\}", text):
        found |= {f"local.{name}" for name in re.findall(r"(?m)^  (\w+)\s*=", body)}
    return found


def _used(text: str) -> set[str]:
    text = _without_comments(text)
    found = set(re.findall(r"\b(?:var|local)\.\w+", text))
    return found | set(re.findall(r"(?<![\w.\"])(?:data\.)?(?:aws|google|tls)_\w+\.\w+", text))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_reference_leads_somewhere(cloud: str) -> None:
    declared, used = _declared(_text(cloud)), _used(_text(cloud))
    assert used - declared == set()
    unused = {name for name in declared - used if name.startswith(("var.", "local.", "data."))}
    assert unused == set()


def test_a_reference_into_nothing_is_noticed() -> None:
    text = 'resource "aws_vpc" "a" {\n  x = aws_vpc.b.id\n  y = var.z\n}\n'
    assert _used(text) - _declared(text) == {"aws_vpc.b", "var.z"}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_the_contract_names_is_there(cloud: str) -> None:
    assert all(f'resource "{kind}"' in _text(cloud, "main.tf") for kind in WANTED[cloud])
    assert re.search(r'backend "(s3|gcs)" \{', _text(cloud, "versions.tf"))
    managed = _text(cloud, "managed.tf")
    for kind in MANAGED[cloud]:
        [block] = re.findall(rf'(?ms)^resource "{kind}" .*?^\}}', managed)
        assert re.search(r"count = var\.(postgresql|kafka|redis) == null \? 0 : 1", block)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_variables_and_outputs_are_described(cloud: str) -> None:
    blocks = re.findall(r'(?ms)^(?:variable|output) "(\w+)" \{\n(.*?)^\}', _text(cloud))
    assert len(blocks) > 10
    assert [name for name, body in blocks if not re.search(r'(?m)^  description = "', body)] == []


# --- Arguments, by the schema of the provider


@cache
def _parsed(cloud: str) -> tuple[dict[str, Any], ...]:
    """Each file as data, by the parser that checkov brings."""
    python = TOOLS / "checkov" / "bin" / "python"
    if not python.exists():
        pytest.skip("checkov is not installed: deploy/install-tools does it")
    code = "import hcl2, json, sys; print(json.dumps([hcl2.load(open(f)) for f in sys.argv[1:]]))"
    files = sorted(map(str, (TERRAFORM / cloud).glob("*.tf")))
    told = subprocess.run([python, "-c", code, *files], capture_output=True, text=True, check=True)
    parsed: list[dict[str, Any]] = json.loads(told.stdout)
    return tuple(parsed)


@cache
def _provider(cloud: str) -> zipfile.ZipFile:
    name = f"cdktf_cdktf_provider_{PROVIDERS[cloud]}-*.whl"
    for wheel in sorted((TOOLS / "providers").glob(name)):
        return zipfile.ZipFile(wheel)
    pytest.skip("the schemas of the providers are not there: deploy/install-tools fetches them")


Arguments = dict[str, tuple[bool, str]]  # name -> whether it must be given, its type in Python


@cache
def _classes(cloud: str, kind: str) -> dict[str, Arguments]:
    """Class -> arguments, of one resource's module and the blocks in it."""
    package = f"cdktf_cdktf_provider_{PROVIDERS[cloud]}"
    bare = kind.removeprefix(f"{PROVIDERS[cloud]}_")
    source = _provider(cloud).read(f"{package}/{bare}/__init__.py").decode()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                    found[node.name] = {
                        argument.arg: (default is None, ast.unparse(argument.annotation or node))
                        for argument, default in zip(
                            each.args.kwonlyargs, each.args.kw_defaults, strict=True
                        )
                    }
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _given(block: dict[str, Any]) -> dict[str, Any]:
    """Argument -> value, those of dynamic blocks among them."""
    given = {key.strip('"'): value for key, value in block.items() if not key.startswith("__")}
    for each in _as_list(given.pop("dynamic", [])):
        for inner, body in each.items():
            given[inner.strip('"')] = _as_list(body)[0]["content"]
    return given


def _complaints(
    cloud: str, kind: str, block: dict[str, Any], name: str, where: str
) -> Iterator[str]:
    """Arguments that the provider does not know or misses, in a block and in the blocks inside."""
    classes = _classes(cloud, kind)
    arguments = classes[name]
    given = _given(block)
    # Python's own words get an underscore behind them.
    known = {argument.rstrip("_"): value for argument, value in arguments.items()}
    for argument, (needed, _) in known.items():
        if needed and argument not in given:
            yield f"{where} lacks {argument}"
    for argument, value in given.items():
        if argument not in known:
            yield f"{where} has {argument}, which there is not"
            continue
        for inner in re.findall(r"'(\w+)'", known[argument][1]):
            if inner in classes:
                for body in _as_list(value):
                    if isinstance(body, dict):
                        yield from _complaints(cloud, kind, body, inner, f"{where}.{argument}")


def _blocks(cloud: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in _parsed(cloud):
        for section in ("resource", "data"):
            for each in file.get(section, []):
                for kind, named in each.items():
                    for name, body in named.items():
                        yield section, kind.strip('"'), {"__name": name, **body}


def _of_provider(cloud: str) -> list[str]:
    found: list[str] = []
    for section, kind, body in _blocks(cloud):
        if not kind.startswith(f"{PROVIDERS[cloud]}_"):
            continue
        given = {key: value for key, value in body.items() if key.strip('"') not in META}
        prefix = f"data_{PROVIDERS[cloud]}_" if section == "data" else ""
        module = prefix + kind.removeprefix(f"{PROVIDERS[cloud]}_")
        class_name = "".join(part.capitalize() for part in module.split("_"))
        where = f"{kind}.{body['__name']}".replace('"', "")
        found += _complaints(cloud, module, given, class_name, where)
    return found


@pytest.mark.parametrize("cloud", CLOUDS)
def test_arguments_are_those_of_the_provider(cloud: str) -> None:
    assert len(list(_blocks(cloud))) > 15
    assert _of_provider(cloud) == []


def test_an_argument_that_there_is_not_is_noticed() -> None:
    [cluster] = [body for _, kind, body in _blocks("aws") if kind == "aws_eks_cluster"]
    spoiled = {key: value for key, value in cluster.items() if key.strip('"') not in META}
    spoiled["nodes"] = 3
    spoiled["vpc_config"] = [{"endpoint_public_access": True}]
    assert set(_complaints("aws", "eks_cluster", spoiled, "EksCluster", "c")) == {
        "c has nodes, which there is not",
        "c.vpc_config lacks subnet_ids",
    }
