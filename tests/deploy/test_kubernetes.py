"""The manifests of deploy/kubernetes: valid, safe, and about the node that there is: its ports, paths and times."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from starlette.routing import Route

from containerlab import DOCKERFILE, only, pairs, stages
from deploylab import DEPLOY, ROOT, Json
from documents import blocks
from hubbub import api, config
from hubbub.api.health import READY_TIMEOUT_S
from hubbub.fanout.nats import parse_address
from hubbub.listening import HTTP_SHUTDOWN_S
from hubbub.store import PostgresStore, open_store

FOLDER = DEPLOY / "kubernetes"
HOW_TO = ROOT / "docs" / "how-to" / "kubernetes.md"
MANIFESTS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")

VERSIONS = ("1.30", "1.37")
"""The oldest Kubernetes that the how-to names, and the newest that there are schemas of."""

EXCEPTED = {
    "CKV_K8S_11": "a limit of CPU throttles the event loop, and then everybody on the node waits",
    "CKV_K8S_15": "tags are versions, which do not move, so an image that is there need not be asked for",
    "CKV_K8S_43": "the digest is that of the reader's own build",
}
"""The rules of checkov that the manifests do not follow, and why."""


def documents(path: Path) -> list[Json]:
    """What a file has; a key that stands twice in a mapping is a mistake, not the last word."""
    return [each for each in yaml.load_all(path.read_text(), Loader=_Strict) if each is not None]


class _Strict(yaml.SafeLoader):
    """YAML without keys that stand twice, and without words that are no texts in YAML 1.1, such as `no`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        assert len(set(keys)) == len(keys), f"a key stands twice: {node.start_mark}"
        for key, value in node.value:
            for each in (key, value):
                is_odd = each.tag.endswith(":bool") and each.value not in ("true", "false")
                assert not is_odd, f"{each.value} is no text: {each.start_mark}"
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


ALL = [document for path in MANIFESTS for document in documents(path)]


def one(kind: str, name: str = "hubbub") -> Json:
    """The one manifest of a kind with a name."""
    (found,) = [each for each in ALL if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


POD: Json = one("Deployment")["spec"]["template"]
NODE: Json = POD["spec"]["containers"][0]


def variables() -> dict[str, str]:
    """What settings.env gives to the nodes, as kustomize reads it."""
    lines = (FOLDER / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def settings_of_nodes(folder: Path) -> config.Settings:
    """The settings that a node has: from its image, the ConfigMap, and the Secret that the example shows."""
    _, final = stages(DOCKERFILE.read_text())
    file = folder / "hubbub.toml"
    file.write_text(one("Secret")["stringData"]["hubbub.toml"])
    return config.load({}, {**pairs(only(final, "ENV")), **variables()}, file)


@pytest.fixture(scope="module")
def built() -> list[Json]:
    """What `kubectl kustomize` makes of the folder."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("NOT BUILT BY kubectl kustomize: kubectl is not here")
    done = subprocess.run([kubectl, "kustomize", FOLDER], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "it warns"
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_as_kubernetes_has_them(version: str) -> None:
    """Every manifest has the fields and types of Kubernetes' own schemas, and no others; mistakes would be named."""
    assert len(ALL) >= 9
    for document in ALL:
        kubernetes_validate.validate(document, version, strict=True)
    broken = json.loads(json.dumps(one("Deployment")))
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_kustomize_builds_what_is_valid(built: list[Json]) -> None:
    """What kustomize makes is valid, in one namespace, has everything but the examples, and no Secret."""
    for document in built:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    kinds = {each["kind"] for each in built}
    optional = {"Secret", "HorizontalPodAutoscaler"}
    assert kinds == {each["kind"] for each in ALL} - optional | {"ConfigMap"}
    assert {each["metadata"].get("namespace") for each in built if each["kind"] != "Namespace"} == {"hubbub"}


def test_a_changed_setting_rolls_out(built: list[Json]) -> None:
    """The ConfigMap is called by what is in it, and nodes read it by that name, so that a change makes new pods."""
    (settings,) = [each for each in built if each["kind"] == "ConfigMap"]
    (deployment,) = [each for each in built if each["kind"] == "Deployment"]
    assert re.fullmatch(r"hubbub-settings-\w{10}", settings["metadata"]["name"])
    (read,) = deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert read == {"configMapRef": {"name": settings["metadata"]["name"]}}
    assert settings["data"] == variables()


def test_every_file_is_in_the_kustomization_or_said_not_to_be() -> None:
    """Each manifest is listed in kustomization.yaml; optional ones are in a comment there, or in the how-to."""
    text = (FOLDER / "kustomization.yaml").read_text()
    listed = set(yaml.safe_load(text)["resources"])
    assert listed <= {path.name for path in MANIFESTS}
    for path in MANIFESTS:
        assert path.name in listed or path.name in text or path.name in HOW_TO.read_text(), path.name


def test_settings_of_nodes_are_settings(tmp_path: Path) -> None:
    """Variables and the Secret's file are settings that can be, all of them known: a shared log, and NATS."""
    settings = settings_of_nodes(tmp_path)
    assert settings.store_url.startswith("postgresql://")
    assert settings.fanout.startswith("tls://")
    assert len(settings.secret or "") >= 32
    assert not {"HUBBUB_STORE", "HUBBUB_FANOUT", "HUBBUB_SECRET"} & variables().keys(), "the ConfigMap is no secret"


def test_addresses_are_such_as_hubbub_takes(tmp_path: Path) -> None:
    """Addresses in the example's Secret and in the how-to are ones that the store and the fan-out understand."""
    settings = settings_of_nodes(tmp_path)
    shown = set(re.findall(r"\b(?:postgresql|nats|tls)://[^\s`\"…]+(?=[`\"])", HOW_TO.read_text()))
    assert len(shown) >= 4
    for address in {settings.store_url, settings.fanout, *shown}:
        if address.startswith("postgresql://"):
            assert isinstance(open_store(address), PostgresStore)
        else:
            assert parse_address(address).password == "PASSWORD"


def test_nodes_read_the_secret_where_it_is() -> None:
    """The command names the file of the Secret, which the node's user may read and nobody may write."""
    assert NODE["args"][0] == "serve"
    path = Path(NODE["args"][NODE["args"].index("--config") + 1])
    (mount,) = NODE["volumeMounts"]
    (volume,) = POD["spec"]["volumes"]
    assert mount["name"] == volume["name"]
    assert mount["readOnly"] is True
    assert path.parent == Path(mount["mountPath"])
    assert volume["secret"]["secretName"] == one("Secret")["metadata"]["name"]
    assert path.name in one("Secret")["stringData"]
    assert volume["secret"]["defaultMode"] == 0o440
    _, final = stages(DOCKERFILE.read_text())
    group = int(only(final, "USER").partition(":")[2])
    assert POD["spec"]["securityContext"]["fsGroup"] == group


def test_ports_are_those_of_the_settings(tmp_path: Path) -> None:
    """Ports of pods are those that the settings name, and Services, probes, Ingress and policy lead to these."""
    settings = settings_of_nodes(tmp_path)
    ports = {port["name"]: port["containerPort"] for port in NODE["ports"]}
    assert ports == {"http": settings.port, "admin": settings.admin_port}
    assert settings.host == "0.0.0.0"
    (public,) = one("Service")["spec"]["ports"]
    (admin,) = one("Service", "hubbub-admin")["spec"]["ports"]
    assert (public["targetPort"], admin["targetPort"]) == ("http", "admin")
    assert one("Service", "hubbub-admin")["spec"]["clusterIP"] == "None"
    (rule,) = one("Ingress")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "hubbub", "port": {"name": public["name"]}}
    allowed = [port["port"] for each in one("NetworkPolicy")["spec"]["ingress"] for port in each["ports"]]
    assert sorted(allowed) == sorted(ports)


def probes() -> Iterator[tuple[str, Json]]:
    """The node's probes by name."""
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield name, NODE[name]


def test_probes_ask_what_there_is() -> None:
    """Probes ask for paths that the node has, by the port without a limit of connections; only readiness asks more."""

    async def needs() -> None:
        return None

    routes = api.health_routes(needs=needs, draining=lambda: False)
    paths = {route.path for route in routes if isinstance(route, Route)}
    assert {probe["httpGet"]["path"] for _, probe in probes()} == paths
    for name, probe in probes():
        assert probe["httpGet"]["port"] == "admin", name
        assert (probe["httpGet"]["path"] == "/readyz") is (name == "readinessProbe"), name
    assert NODE["readinessProbe"]["timeoutSeconds"] > READY_TIMEOUT_S, "it would not hear why the node is not ready"


def test_nodes_have_time_to_go(tmp_path: Path) -> None:
    """Endpoints are told before a node drains, and it is killed only after pause, drain and requests under way."""
    pause_s = NODE["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause_s >= 5
    after_s = pause_s + settings_of_nodes(tmp_path).drain_s + HTTP_SHUTDOWN_S
    assert POD["spec"]["terminationGracePeriodSeconds"] > after_s
    spec = one("Deployment")["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["minReadySeconds"] > 0


def test_pods_are_found_by_their_labels() -> None:
    """Deployment, Services, budget, policy and spread all select the pods by labels that these have."""
    labels = POD["metadata"]["labels"].items()
    selectors = [
        one("Deployment")["spec"]["selector"]["matchLabels"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one("Service")["spec"]["selector"],
        one("Service", "hubbub-admin")["spec"]["selector"],
        *(each["labelSelector"]["matchLabels"] for each in POD["spec"]["topologySpreadConstraints"]),
    ]
    assert len(selectors) == 7
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


def test_one_node_may_go_at_a_time() -> None:
    """With the Deployment's replicas the budget lets one pod go and no more, broken pods always."""
    budget = one("PodDisruptionBudget")["spec"]
    assert one("Deployment")["spec"]["replicas"] == 3
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    keys = [each["topologyKey"] for each in POD["spec"]["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_pods_have_no_rights() -> None:
    """Pods run as the image's user, write nothing, have no capabilities and no token: the `restricted` standard."""
    _, final = stages(DOCKERFILE.read_text())
    user, _, group = only(final, "USER").partition(":")
    pod, container = POD["spec"]["securityContext"], NODE["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["runAsGroup"]) == (True, int(user), int(group))
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert one("ServiceAccount")["automountServiceAccountToken"] is False
    assert POD["spec"]["serviceAccountName"] == "hubbub"
    labels = one("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_services_do_not_become_settings() -> None:
    """The Service called hubbub puts no HUBBUB_PORT=tcp://… into pods, which would be taken for a setting."""
    assert POD["spec"]["enableServiceLinks"] is False


def test_the_image_is_this_version() -> None:
    """The Deployment and the kustomization name the image by this version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert NODE["image"] == f"hubbub:{project['version']}"
    (image,) = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["images"]
    assert (image["name"], image["newTag"]) == ("hubbub", project["version"])


def test_the_ingress_keeps_quiet_connections_and_nobodys_place(tmp_path: Path) -> None:
    """Time-outs of the ingress are longer than a connection is ever silent, and no annotation makes it sticky."""
    annotations = one("Ingress")["metadata"]["annotations"]
    settings = settings_of_nodes(tmp_path)
    for direction in ("read", "send"):
        assert int(annotations[f"nginx.ingress.kubernetes.io/proxy-{direction}-timeout"]) > 2 * settings.ping_after_s
    assert not [name for name in annotations if "affinity" in name or "session" in name]
    assert one("Service")["spec"]["sessionAffinity"] == "None"
    assert all(isinstance(value, str) for value in annotations.values())


def test_the_autoscaler_is_of_this_deployment() -> None:
    """The optional autoscaler names the Deployment, never has fewer nodes, and takes them away one at a time."""
    spec = one("HorizontalPodAutoscaler")["spec"]
    assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) == ("Deployment", "hubbub")
    assert spec["minReplicas"] == one("Deployment")["spec"]["replicas"]
    (policy,) = spec["behavior"]["scaleDown"]["policies"]
    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] > POD["spec"]["terminationGracePeriodSeconds"]


def checked(checkov: Path, folder: Path, manifests: list[Json]) -> set[str]:
    """The rules that manifests break."""
    file = folder / "all.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    command = [checkov, "--file", file, "--framework", "kubernetes", "--output", "json", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 80
    return {failed["check_id"] for failed in report["results"]["failed_checks"]}


@pytest.mark.timeout(420)
def test_checkov_finds_what_is_excepted_and_nothing_else(checkov: Path, tmp_path: Path) -> None:
    """The rules of checkov hold for all manifests, but for those that are excepted, each with its reason."""
    assert checked(checkov, tmp_path, ALL) == EXCEPTED.keys()


def test_the_how_to_names_what_is_there() -> None:
    """Files and Kubernetes objects that the how-to names exist, and what it shows of YAML and TOML can be read."""
    text = HOW_TO.read_text()
    for path in re.findall(r"\b(deploy/[\w./-]+\w)", text):
        assert (ROOT / path).exists(), path
    for block in blocks(HOW_TO, "yaml"):
        for document in yaml.load_all(block.text, Loader=_Strict):
            assert document["kind"], block.where
    for block in blocks(HOW_TO, "toml"):
        assert config.SETTINGS.keys() >= tomllib.loads(block.text).keys(), block.where
    assert blocks(HOW_TO, "yaml")
    assert blocks(HOW_TO, "toml")
    commands = " ".join(block.text for block in blocks(HOW_TO, "console"))
    assert f"create secret generic {one('Secret')['metadata']['name']} " in commands
    assert f"`{VERSIONS[0]}`" in text or f"Kubernetes {VERSIONS[0]} " in text
